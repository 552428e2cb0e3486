"""Real tools read a mounted tree, and find the bytes of the originals."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import Bucket
from tests.mount import tree
from tests.mount.tools import CHECKS, Check
from tests.mounting import Mounted, Mounts


class Trees(NamedTuple):
    mounted: Mounted
    original: Path


@pytest.fixture(scope="module")
def trees(
    module_bucket: Bucket, module_mount: Mounts, tmp_path_factory: pytest.TempPathFactory
) -> Trees:
    scratch = tmp_path_factory.mktemp("originals")
    files = tree.originals(scratch)
    module_bucket.put(files)
    original = tree.write(files, scratch / "tree")
    return Trees(module_mount(module_bucket.name), original)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_tool(check: Check, trees: Trees, tmp_path: Path) -> None:
    check(trees.mounted.path, trees.original, tmp_path)

"""What is shipped: the locks, the version, the commands, the house rules on size."""

from __future__ import annotations

import ast
import email
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import s3mount

ROOT = Path(__file__).parent.parent
LOCKS = ["build", "runtime", "dev"]
MAX_FILE_LINES = 450
MAX_FUNCTION_LINES = 50


def locked(name: str) -> dict[str, set[str]]:
    """The versions that a lock file names, by project (several when markers choose)."""
    versions: dict[str, set[str]] = {}
    for line in (ROOT / f"requirements/{name}.txt").read_text().splitlines():
        if match := re.match(r"([A-Za-z0-9._-]+)==(\S+)", line):
            versions.setdefault(canonicalize_name(match[1]), set()).add(match[2])
    return versions


def declared() -> dict[str, list[Requirement]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {
        "runtime": [Requirement(text) for text in project["dependencies"]],
        "dev": [
            Requirement(text)
            for text in project["dependencies"] + project["optional-dependencies"]["dev"]
        ],
    }


@pytest.mark.parametrize("name", LOCKS)
def test_lock_has_a_hash_for_all_and_names_no_index(name: str) -> None:
    logical_lines = (ROOT / f"requirements/{name}.txt").read_text().replace("\\\n", "").splitlines()
    requirement = re.compile(r"[a-z0-9._-]+==\S+( ; [^@]+?)?(\s+--hash=sha256:[0-9a-f]{64})+")
    odd = [line for line in logical_lines if not requirement.fullmatch(line)]
    assert odd == []


@pytest.mark.parametrize("name", ["runtime", "dev"])
def test_lock_satisfies_what_is_declared(name: str) -> None:
    versions = locked(name)
    unmet = [
        str(requirement)
        for requirement in declared()[name]
        if not versions.get(canonicalize_name(requirement.name))
        or not all(
            map(requirement.specifier.contains, versions[canonicalize_name(requirement.name)])
        )
    ]
    assert unmet == [], "run scripts/lock"


def test_what_is_tested_is_what_users_get() -> None:
    dev = locked("dev")
    assert {name: dev.get(name) for name in locked("runtime")} == locked("runtime")


def test_installed_version_is_the_packages() -> None:
    assert metadata.version("s3mount") == s3mount.__version__


def test_newest_changelog_entry_is_this_version() -> None:
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == s3mount.__version__


def test_wheel_holds_the_package_and_its_command(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT],
        check=True,
        capture_output=True,
    )
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        info = f"s3mount-{s3mount.__version__}.dist-info"
        fields = email.message_from_bytes(archive.read(f"{info}/METADATA"))
        scripts = archive.read(f"{info}/entry_points.txt").decode()
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "s3mount").rglob("*.py")}
    assert {name for name in names if not name.startswith(info)} == modules | {"s3mount/py.typed"}
    assert fields["Version"] == s3mount.__version__
    assert fields["License-Expression"] == "Apache-2.0"
    assert "s3mount = s3mount.cli:main" in scripts


@pytest.mark.parametrize("script", ["setup", "test", "demo", "lock", "check-dockerfile"])
def test_script_can_be_run_and_parses(script: str) -> None:
    path = ROOT / "scripts" / script
    assert path.stat().st_mode & 0o111 == 0o111
    shell = path.read_text().splitlines()[0].removeprefix("#!/bin/")
    if shell in {"sh", "bash"}:
        subprocess.run([shell, "-n", path], check=True)


def test_setup_refuses_an_unknown_level() -> None:
    result = subprocess.run(
        [ROOT / "scripts/setup", "everything"], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("setup: unknown level 'everything'; use one of: demo, test, ")


def test_files_and_functions_stay_small_enough_to_read() -> None:
    too_long = []
    for path in sorted((ROOT / "s3mount").rglob("*.py")):
        text = path.read_text()
        name = str(path.relative_to(ROOT))
        if text.count("\n") > MAX_FILE_LINES:
            too_long.append(name)
        too_long += [
            f"{name}:{node.lineno} {node.name}"
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and (node.end_lineno or node.lineno) - node.lineno >= MAX_FUNCTION_LINES
        ]
    assert too_long == []

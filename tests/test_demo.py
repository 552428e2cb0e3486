"""scripts/demo does what it says, leaves nothing behind, and notices a wrong byte."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.demo import Demo, environment
from tests.servers import moto_server

ROOT = Path(__file__).parent.parent
SECONDS = 100


@pytest.fixture
def temporary(tmp_path: Path) -> Iterator[Path]:
    """Where the demo works; nothing may be left there, mounted or not."""
    yield tmp_path
    left = [
        line.split()[1]
        for line in Path("/proc/mounts").read_text().splitlines()
        if line.split()[1].startswith(f"{tmp_path}/")
    ]
    for mountpoint in left:
        subprocess.run(["umount", "--lazy", mountpoint], check=True)
    assert left == []
    assert list(tmp_path.iterdir()) == []


def demo(temporary: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scripts.demo", *arguments],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def test_demo_ends_well(temporary: Path) -> None:
    result = demo(temporary)
    assert result.returncode == 0, result.stdout
    assert "$ umount mnt\n" in result.stdout
    # The second grep, the last command before the unmount.
    assert re.search(r"The same grep once more.*?requests: 0\]\n\n\$ umount", result.stdout, re.S)
    assert re.fullmatch(r"All \d+ checks passed in .*", result.stdout.splitlines()[-1])


def test_kept_mount_is_ended_by_the_line_that_is_shown(temporary: Path) -> None:
    result = demo(temporary, "--keep")
    assert result.returncode == 0, result.stdout
    [mountpoint] = re.findall(r"^The bucket stays mounted on (.*)$", result.stdout, re.M)
    assert sorted(os.listdir(mountpoint)) == ["backup", "data", "logs", "names", "site"]
    [line] = re.findall(r"^ {4}(umount .*)$", result.stdout, re.M)
    subprocess.run(line, shell=True, check=True)


@pytest.mark.parametrize(
    ("command", "complaints"),
    [
        ("cat same", 0),
        ("cat other", 1),
        ("grep word same", 1),
        ("cat missing", 2),
    ],
)
def test_a_difference_or_a_failure_is_noticed(
    command: str, complaints: int, tmp_path: Path
) -> None:
    originals, mounted = tmp_path / "originals", tmp_path / "mnt"
    for directory, letter in ((originals, b"a"), (mounted, b"b")):
        directory.mkdir()
        (directory / "same").write_bytes(b"bytes")
        (directory / "other").write_bytes(letter)
    (originals / "missing").touch()
    with moto_server() as server:
        shown = Demo(server, tmp_path, mounted, originals, environment(server))
        shown.same(command)
    assert len(shown.failures) == complaints

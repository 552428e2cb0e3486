"""--help and --version: complete, narrow, and quick."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from s3mount import __version__
from s3mount.cli import build_parser, main
from s3mount.errors import UsageError
from s3mount.fstab import MountOptions
from s3mount.options import COMMAND_LINE, GROUPS, OPTIONS
from tests.cli.conftest import ROOT
from tests.cli.options_table import markdown


def shown(argument: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        main([argument])
    assert caught.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("columns", [80, 120])
def test_help_fits(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for argument in ("--help", "-h"):
        lines = shown(argument, capsys).splitlines()
        assert max(map(len, lines)) < columns


def test_help_names_every_option_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(shown("--help", capsys).split())
    for group in GROUPS:
        assert f"{group}:" in text
    for option in OPTIONS:
        if COMMAND_LINE in option.places:
            assert f"--{option.name}" in text
            assert f"(default: {option.default})" in text or not option.default


def test_the_parser_knows_the_table_and_nothing_else() -> None:
    names = set(re.findall(r"^  (?:-\w, )?--([a-z-]+)", build_parser().format_help(), re.M))
    expected = {option.name for option in OPTIONS if COMMAND_LINE in option.places}
    assert names == expected | {"help", "version"}


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown("--version", capsys) == f"s3mount {__version__}\n"


def test_neither_help_nor_a_wrong_option_loads_what_is_heavy() -> None:
    program = """
import sys
from s3mount.cli import main
try:
    main(["--help"])
except SystemExit:
    pass
assert main(["--wrong"]) == 2
heavy = {"trio", "boto3", "botocore", "pyfuse3", "diskcache", "asyncio"}
print(sorted(heavy & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stderr.splitlines()[-1] == "[]"


def test_the_page_of_options_is_up_to_date() -> None:
    assert (ROOT / "docs/options.md").read_text() == markdown()


def test_every_option_of_mount_on_that_page_is_treated_as_it_says() -> None:
    rows = re.findall(r"^\| (`.*?) \| (.*) \|$", markdown().partition("mount(8)\n")[2], re.M)
    assert len(rows) > 6
    for names, treatment in rows:
        for name in re.findall(r"`([^`]*)`", names):
            options = MountOptions()
            word = name.replace("*", "y").replace("NAME", "y")
            if treatment.startswith("refused"):
                with pytest.raises(UsageError):
                    options.read(word)
                continue
            settings = options.read(word)
            assert bool(options.kernel) == ("passed on" in treatment), name
            assert bool(settings) == (name in ("ro", "rw", "fsname=NAME")), name

"""The Dockerfile: each of its steps runs, and the result mounts a bucket."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from scripts.check_dockerfile import instructions, is_ignored

ROOT = Path(__file__).parent.parent


def test_instructions_are_joined_and_comments_dropped() -> None:
    text = "# about\nFROM a AS b\n\nRUN one \\\n    && two \\\n# not this\n    && three\n"
    assert instructions(text) == [("FROM", "a AS b"), ("RUN", "one && two && three")]


@pytest.mark.parametrize(
    ("source", "ignored"),
    [
        ("pyproject.toml", False),
        ("s3mount", False),
        ("requirements/build.txt", False),
        ("tests", True),
        (".git", True),
        (".venv", True),
    ],
)
def test_only_what_is_copied_is_sent_to_the_engine(source: str, ignored: bool) -> None:
    assert is_ignored(source) == ignored


@pytest.mark.long
@pytest.mark.timeout(900)
def test_steps_run_and_the_image_mounts() -> None:
    result = subprocess.run(
        [ROOT / "scripts/check-dockerfile"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    assert "== mounted a bucket, read from it, ended" in result.stdout

"""The pages of documentation: every test, file and link they name is there, every claim has a test.

What README.md alone has (transcripts, commands, messages) is in tests/test_readme.py.
"""

from __future__ import annotations

import ast
import errno
import re
from functools import cache
from pathlib import Path

import pytest

from s3mount.kernel.errnos import ERRNOS
from tests.markdown import Page
from tests.mounting import ROOT

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
SEMANTICS = Page(ROOT / "docs/semantics.md")

# Directories of the repository whose files the pages name.
PLACES = ("benchmarks/", "docs/", "requirements/", "s3mount/", "scripts/", "systemd/", "tests/")

REFERENCE = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@cache
def names_of_tests(path: str) -> frozenset[str]:
    """The names of the test functions in that file, those in classes among them."""
    tree = ast.parse((ROOT / path).read_text())
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    )


def blocks() -> list[str]:
    """The paragraphs and tables of docs/semantics.md, without headings and the introduction."""
    text = SEMANTICS.text.partition("\n## ")[2]
    return [block for block in f"## {text}".split("\n\n") if not block.startswith("#")]


@pytest.mark.parametrize(
    "block", [block for block in blocks() if block[0] != "|"], ids=lambda block: block[:40]
)
def test_each_paragraph_names_its_tests(block: str) -> None:
    claim, arrow, tests = block.partition("\n→ ")
    assert claim
    assert arrow, "a paragraph without a test"
    assert re.fullmatch(r"`\S+`(,\s`\S+`)*\s*", tests)


def test_what_a_table_says_is_tested_as_the_paragraph_below_says() -> None:
    all_blocks = blocks()
    below = [all_blocks[i + 1] for i, block in enumerate(all_blocks) if block.startswith("|")]
    assert below
    assert all(not block.startswith("|") for block in below)


def test_the_tests_that_are_named_exist() -> None:
    named = [found for page in PAGES for found in REFERENCE.findall(page.read_text())]
    assert len(named) > 100
    missing = [f"{path}::{name}" for path, name in named
               if not (ROOT / path).exists() or name not in names_of_tests(path)]  # fmt: skip
    assert missing == []


def test_the_table_of_errnos_is_the_kernels() -> None:
    shown = {row[0].strip("`"): row[1] for row in SEMANTICS.section("Errors").table()}
    assert shown == {kind.__name__: errno.errorcode[number] for kind, number in ERRNOS.items()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in Page(page).links():
        if re.match("https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in Page(target).anchors()):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_named_exist(page: Path) -> None:
    named = [span.split()[0].partition("::")[0] for span in Page(page).spans()]
    files = [name for name in named if name.startswith(PLACES)]
    assert [name for name in files if not (ROOT / name).exists()] == []

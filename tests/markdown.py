"""Takes a page of documentation apart, as far as the tests of the pages need it."""

from __future__ import annotations

import re
from pathlib import Path


class Page:
    """A Markdown file, or one section of it."""

    def __init__(self, source: Path | str) -> None:
        self.text = source.read_text() if isinstance(source, Path) else source

    def section(self, heading: str) -> Page:
        """What stands below the heading, up to the next one of its level or above."""
        found = re.search(rf"^(#+) {re.escape(heading)}$", self.prose(keep=True), re.MULTILINE)
        assert found is not None, f"there is no heading {heading!r}"
        rest = self.text[found.end() :]
        until = re.search(rf"^#{{1,{len(found[1])}}} ", Page(rest).prose(keep=True), re.MULTILINE)
        return Page(rest[: until.start()] if until else rest)

    def fences(self, language: str) -> list[str]:
        """The contents of the code blocks of that language."""
        found = re.findall(r"^```(\w*)\n(.*?)^```$", self.text, re.MULTILINE | re.DOTALL)
        return [content for name, content in found if name == language]

    def prose(self, *, keep: bool = False) -> str:
        """The text without code blocks; `keep` leaves every character its place."""

        def blank(found: re.Match[str]) -> str:
            return re.sub(r"[^\n]", " ", found[0]) if keep else ""

        return re.sub(r"^```.*?^```$", blank, self.text, flags=re.MULTILINE | re.DOTALL)

    def spans(self) -> list[str]:
        """The contents of the code spans: `x` and ``x``."""
        return [found[2] for found in re.finditer(r"(`+)(.+?)(?<!`)\1(?!`)", self.prose())]

    def links(self) -> list[str]:
        """The targets of the links."""
        return re.findall(r"\]\(([^)\s]+)\)", self.prose())

    def headings(self) -> list[str]:
        """The texts of the headings."""
        return re.findall(r"^#+ (.*)$", self.prose(), re.MULTILINE)

    def anchors(self) -> set[str]:
        """What a link may name behind "#", as GitHub makes it of each heading."""
        return {
            re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-")
            for heading in self.headings()
        }

    def table(self, below: str = "") -> list[list[str]]:
        """The rows of the first table (behind the line `below`), without its head."""
        text = self.text.partition(below)[2] if below else self.text
        found = re.search(r"^\|[^\n]*\n\|[-|: ]+\n((?:\|[^\n]*(?:\n|$))*)", text, re.MULTILINE)
        assert found is not None, "there is no table"
        return [
            [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))]
            for line in found[1].splitlines()
        ]

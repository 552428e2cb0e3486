"""Chapters against a reference that looks at every key of the bucket."""

from __future__ import annotations

from itertools import cycle

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from s3mount.model import ListPage, ObjectInfo
from s3mount.namespace.known import END, START, Known, after
from s3mount.namespace.listing import Chapter, delimited, flat, is_showable
from tests.namespace import worlds
from tests.namespace.worlds import children, info, is_good, pages

worlds_of_keys = st.lists(worlds.keys, max_size=14)
sizes = st.lists(st.integers(1, 5), min_size=1, max_size=6)


def requests(prefix: str, lo: str, earlier: int = 0) -> str:
    """A start-after that asks for everything from the suffix `lo` on, and for some before it."""
    return "" if lo == START else (prefix + lo[:-1])[: -earlier or None]


los = st.one_of(st.just(START), worlds.keys.map(after))
worlds_with_markers = st.builds(
    lambda keys, prefix, below, has_marker: (
        {
            key: info(key)
            for key in keys + [prefix + key for key in keys if below] + [prefix] * has_marker
            if key
        },
        prefix,
    ),
    worlds_of_keys,
    worlds.prefixes,
    st.booleans(),
    st.booleans(),
)
World = tuple[dict[str, ObjectInfo], str]


@given(case=worlds_with_markers, lo=los, earlier=st.integers(0, 2), sizes=sizes)
@example(case=({"a": info("a"), "b/": info("b/")}, ""), lo="b/\0", earlier=2, sizes=[1])
def test_delimited_chapters_tell_exactly_what_is_there(
    case: World, lo: str, earlier: int, sizes: list[int]
) -> None:
    world, prefix = case
    truth = children(world, prefix)
    known = Known()
    hidden = 0
    for page in pages(world, prefix, "/", requests(prefix, lo, earlier), iter(cycle(sizes))):
        begin = known.reach(lo, 0.0)
        chapter = delimited(page, prefix, begin)
        assert chapter.prefix == prefix
        assert chapter.lo == begin
        assert (chapter.files, set(chapter.directories)) == truth.within(chapter.lo, chapter.hi)
        assert list(chapter.files) == sorted(chapter.files)
        if lo == START and chapter.lo == START:
            assert chapter.marker == truth.marker
        known.learn(chapter.lo, chapter.hi, 1.0)
        hidden += chapter.hidden
    assert known.reach(lo, 0.0) == END
    listed = worlds.listed(world, prefix, "/", requests(prefix, lo, earlier))
    suffixes = [key[len(prefix) :] for key in listed if key != prefix]
    assert hidden == sum(not is_good(s.removesuffix("/")) for s in suffixes if s >= lo)


def is_reached(key: str, prefix: str) -> bool:
    """Whether a path leads to the object: the last component is empty for a marker."""
    *directories, name = key[len(prefix) :].split("/")
    return all(map(is_good, directories)) and (is_good(name) or not name)


@given(case=worlds_with_markers, lo=los, earlier=st.integers(0, 2), sizes=sizes)
@example(case=({"a/a": info("a/a")}, ""), lo="a/b\0", earlier=1, sizes=[1])
@example(case=({"a//b": info("a//b")}, ""), lo="a/\0", earlier=0, sizes=[1])
def test_flat_chapters_tell_exactly_what_is_there(
    case: World, lo: str, earlier: int, sizes: list[int]
) -> None:
    world, prefix = case
    hidden = 0
    begin = lo
    for page in pages(world, prefix, "", requests(prefix, lo, earlier), iter(cycle(sizes))):
        chapters = flat(page, prefix, begin)
        assert chapters[0].prefix == prefix
        assert len({chapter.prefix for chapter in chapters}) == len(chapters)
        for chapter in chapters:
            check_flat(chapter, world)
        hidden += sum(chapter.hidden for chapter in chapters)
        begin = max(after(page.last[len(prefix) :]), begin)
    asked = worlds.listed(world, prefix, "", requests(prefix, lo, earlier))
    assert hidden == sum(not is_reached(key, prefix) for key in asked if key[len(prefix) :] >= lo)


def check_flat(chapter: Chapter, world: dict[str, ObjectInfo]) -> None:
    """A chapter is the truth within its interval; a directory astride its edge may be told of."""
    truth = children(world, chapter.prefix)
    files, directories = truth.within(chapter.lo, chapter.hi)
    assert chapter.files == files
    assert directories <= set(chapter.directories) <= truth.directories
    if chapter.marker is not None:
        assert chapter.marker == truth.marker
    if truth.marker is not None and chapter.lo == START < chapter.hi:
        assert chapter.marker == truth.marker


@given(keys=worlds_of_keys, prefix=worlds.prefixes, sizes=sizes)
@example(keys=["a/a", "a/b", "b"], prefix="", sizes=[2])
def test_flat_pages_together_tell_everything(
    keys: list[str], prefix: str, sizes: list[int]
) -> None:
    world = {prefix + key: info(prefix + key) for key in keys}
    known: dict[str, Known] = {}
    begin = START
    for page in pages(world, prefix, "", "", iter(cycle(sizes))):
        for chapter in flat(page, prefix, begin):
            known.setdefault(chapter.prefix, Known()).learn(chapter.lo, chapter.hi, 1.0)
        begin = after(page.last[len(prefix) :])
    for directory in worlds.directories(world, prefix):
        assert known[directory].reach(START, 1.0) == END, directory


@pytest.mark.parametrize("name", worlds.GOOD_NAMES)
def test_names_that_a_path_can_show(name: str) -> None:
    assert is_showable(name)


@pytest.mark.parametrize("name", worlds.BAD_NAMES)
def test_names_that_no_path_can_show(name: str) -> None:
    assert not is_showable(name)


@given(name=st.text(max_size=300))
def test_a_name_is_judged_by_its_bytes(name: str) -> None:
    assert is_showable(name) == is_good(name)


def test_a_truncated_page_with_nothing_in_it_tells_nothing_of_what_follows() -> None:
    """Servers may answer so, when all that a page looked at was rolled up or deleted."""
    page = ListPage([], [], "token")
    assert delimited(page, "a/", "m").hi == "m"
    assert flat(page, "a/", "m")[0].hi == "m"

"""The orders of a tree: against a plain sort of all keys, and where knowledge ends."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount.namespace import order
from s3mount.namespace.directory import Directory
from s3mount.namespace.known import END, START
from s3mount.namespace.listing import Chapter
from s3mount.namespace.order import (
    Place,
    common_prefix,
    directories_after,
    entries_after,
    is_whole,
    level_after,
    place_of,
)
from tests.namespace.worlds import GOOD_NAMES, info

names = st.sampled_from(("a", "a-", "b", *GOOD_NAMES))
paths = st.lists(names, min_size=1, max_size=4).map("/".join)
tops = st.sampled_from(["", "a/", "a-/b/"])


def tree_of(
    keys: Iterable[str], *, dark: Collection[str] = (), top: str = "", learned: float = 1.0
) -> dict[str, Directory]:
    """The directories of these keys below `top`, all known but for the dark ones."""
    chapters = {top: Chapter(top, START, END)}
    for key in keys:
        parts = key.split("/")
        for i in range(len(parts) - 1):
            parent = top + "".join(part + "/" for part in parts[:i])
            chapters[parent].directories[parts[i]] = None
            below = parent + parts[i] + "/"
            chapters.setdefault(below, Chapter(below, START, END))
        parent = top + "".join(part + "/" for part in parts[:-1])
        chapters[parent].files[parts[-1]] = info(top + key)
    directories = {}
    for prefix, chapter in chapters.items():
        if prefix not in dark:
            directories[prefix] = Directory(prefix)
            chapter.directories = dict.fromkeys(sorted(chapter.directories))
            chapter.files = dict(sorted(chapter.files.items()))
            directories[prefix].apply(chapter, learned)
    return directories


def prefixes_of(keys: Iterable[str], top: str = "") -> list[str]:
    """All directories, in tree order."""
    found = {top}
    for key in keys:
        parts = key.split("/")[:-1]
        found |= {top + "/".join(parts[: i + 1]) + "/" for i in range(len(parts))}
    return sorted(found)


def files_of(keys: Collection[str], top: str = "") -> list[str]:
    """All files that are shown, in tree order: a directory shadows a file of its name."""
    directories = prefixes_of(keys, top)
    shown = {top + key for key in keys if top + key + "/" not in directories}
    return sorted(shown, key=lambda key: key + "/")


@given(keys=st.lists(paths, min_size=1, unique=True), top=tops)
def test_files_come_in_the_order_of_their_keys(keys: list[str], top: str) -> None:
    directories = tree_of(keys, top=top)
    expected = files_of(keys, top)
    for i, key in enumerate(expected):
        prefix, _, name = key.rpartition("/")
        place = Place(prefix + "/" if prefix else "", name)
        steps = entries_after(directories, place, top=top, not_before=0.0)
        files = [step.place.prefix + step.place.name for step in steps if not step.is_directory]
        assert files == expected[i + 1 :]


@given(keys=st.lists(paths, min_size=1, unique=True), top=tops)
def test_directories_depth_first_and_breadth_first(keys: list[str], top: str) -> None:
    directories = tree_of(keys, top=top)
    depth_first = prefixes_of(keys, top)
    by_level = sorted(depth_first, key=lambda prefix: prefix.count("/"))
    for i, prefix in enumerate(depth_first):
        after = directories_after(directories, prefix, top=top, not_before=0.0)
        assert list(after) == depth_first[i + 1 :]
    for i, prefix in enumerate(by_level):
        after = level_after(directories, prefix, top=top, not_before=0.0)
        assert list(after) == by_level[i + 1 :]


@given(
    keys=st.lists(paths, min_size=1, unique=True),
    dark=st.sets(st.integers(0, 30)),
    start=st.integers(0, 30),
)
def test_what_is_not_known_is_not_on_the_way(keys: list[str], dark: set[int], start: int) -> None:
    """Whatever is dark, all orders give known places, in order, each once."""
    every = prefixes_of(keys)
    hidden = {prefix for i, prefix in enumerate(every) if i in dark}
    directories = tree_of(keys, dark=hidden)
    prefix = every[start % len(every)]
    found = list(directories_after(directories, prefix, top="", not_before=0.0))
    assert found == sorted(set(found))
    assert all(each > prefix and place_of(each).prefix not in hidden for each in found)
    level = list(level_after(directories, prefix, top="", not_before=0.0))
    assert level == sorted(set(level), key=lambda each: (each.count("/"), each))
    assert all(place_of(each).prefix not in hidden for each in level)
    steps = list(entries_after(directories, Place(prefix, "a"), top="", not_before=0.0))
    assert all(step.place.prefix not in hidden for step in steps)
    for step in steps:
        if step.is_directory:
            assert step.is_dark == (step.place.below in hidden)


def test_files_stop_where_the_directory_is_not_known_to_its_end() -> None:
    directories = tree_of(["d/a", "d/b", "e/c"])
    directories["d/"].known.forget("b0", END)
    steps = entries_after(directories, Place("d/", "a"), top="", not_before=0.0)
    assert [step.place for step in steps] == [Place("d/", "b")]


def test_what_is_too_old_is_not_known() -> None:
    directories = tree_of(["d/a", "d/b", "e/c"], learned=5.0)
    assert is_whole(directories, "d/", 5.0)
    assert not is_whole(directories, "d/", 5.1)
    assert not is_whole(directories, "nowhere/", 0.0)
    assert list(directories_after(directories, "d/", top="", not_before=5.0)) == ["e/"]
    assert list(directories_after(directories, "d/", top="", not_before=5.1)) == []
    assert list(entries_after(directories, Place("d/", "a"), top="", not_before=5.1)) == []


def test_the_parent_is_searched_only_below_the_top() -> None:
    directories = tree_of(["d/a", "d/b", "e/c"])
    within = entries_after(directories, Place("d/", "a"), top="d/", not_before=0.0)
    assert [step.place.name for step in within] == ["b"]


def test_a_directory_that_is_not_known_is_told_and_passed_by() -> None:
    directories = tree_of(["d/a", "e/b", "f/c"], dark=["e/"])
    steps = list(entries_after(directories, Place("d/", "a"), top="", not_before=0.0))
    assert [(step.place.name, step.is_dark) for step in steps] == [
        ("e", True),
        ("f", False),
        ("c", False),
    ]


def test_the_search_among_files_is_bounded() -> None:
    many = [f"{i:05}" for i in range(order.SEARCHED_MOST + 10)]
    directories = tree_of([*many, "zz/a", "000000/a"])
    found = list(directories_after(directories, "", top="", not_before=0.0))
    assert found == ["000000/"]
    deep = tree_of([f"{name}/below/file" for name in many])
    level = level_after(deep, many[-1] + "/", top="", not_before=0.0)
    assert len(list(islice(level, 10_000))) <= order.SEARCHED_MOST


@pytest.mark.parametrize(
    ("one", "other", "common"),
    [
        ("a/b/", "a/b/", "a/b/"),
        ("a/b/", "a/b/c/", "a/b/"),
        ("a/b/c/", "a/b/", "a/b/"),
        ("a/b/", "a/bc/", "a/"),
        ("a/", "b/c/", ""),
        ("", "a/", ""),
    ],
)
def test_the_directory_that_holds_both(one: str, other: str, common: str) -> None:
    assert common_prefix(one, other) == common


def test_place_of_a_directory() -> None:
    assert place_of("a/b/") == Place("a/", "b")
    assert place_of("a/") == Place("", "a")
    assert Place("a/", "b").below == "a/b/"

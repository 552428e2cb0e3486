"""Rows of a directory: what goes in comes out, whatever form an ETag or a class has."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.micro_names import hold, learn
from s3mount.model import ObjectInfo
from s3mount.namespace import entries as module
from s3mount.namespace.directories import Directories
from s3mount.namespace.entries import Entries, shown_at
from s3mount.namespace.inodes import Inodes

MD5 = "d41d8cd98f00b204e9800998ecf8427e"
ETAGS = st.one_of(
    st.sampled_from(
        [
            f'"{MD5}"',
            f'"{MD5}-1"',
            f'"{MD5}-10000"',
            f'"{MD5}-0"',
            f'"{MD5}-01"',
            f'"{MD5.upper()}"',
            MD5,
            '""',
            "",
        ]
    ),
    st.text(max_size=40),
)
INFOS = st.builds(
    ObjectInfo,
    key=st.just(""),
    size=st.integers(0, 5 * 2**40),
    etag=ETAGS,
    mtime_ns=st.integers(0, 4_000_000_000 * 10**9),
    storage_class=st.sampled_from(["STANDARD", "GLACIER", "DEEP_ARCHIVE"]),
    version_id=st.none(),
)


# The first text of any letters has Hypothesis read its tables.
@given(st.dictionaries(st.text("ab-./0", min_size=1), INFOS, max_size=30))
def test_a_file_comes_out_as_it_went_in(files: dict[str, ObjectInfo]) -> None:
    names = sorted(files, key=shown_at)
    rows = Entries()
    rows.insert(0, [(name, files[name], False) for name in names])
    for name, info in files.items():
        i = rows.find(name)
        assert rows.file(i, "d/") == info._replace(key="d/" + name)
        assert not rows.is_directory(i)
        assert rows.ino(i) == 0


@given(INFOS, INFOS)
def test_a_row_is_overwritten_whole(old: ObjectInfo, new: ObjectInfo) -> None:
    rows = Entries()
    rows.insert(0, [("a", old, True)])
    rows.set_file(0, new)
    assert rows.file(0, "") == new._replace(key="a")
    assert rows.is_directory(0)
    rows.unset_file(0)
    assert rows.file(0, "") is None
    assert rows.directories == 1
    rows.set_directory(0, is_directory=False)
    rows.drop_empty(0, 1)
    assert len(rows) == rows.directories == 0


def test_names_are_found_in_any_order() -> None:
    names = sorted((f"{i:03}" for i in range(100)), key=shown_at)
    rows = Entries()
    rows.insert(0, [(name, None, True) for name in names])
    asked = [*names, *reversed(names), "", "0", "050x", "100"]
    assert [rows.find(name) for name in asked] == [*range(100), *reversed(range(100)), *[-1] * 4]


def test_an_endpoint_that_invents_storage_classes_does_no_harm() -> None:
    known = list(module._storage_classes)
    try:
        rows = Entries()
        infos = [ObjectInfo("a", 1, '""', 0, f"CLASS-{i}") for i in range(100)]
        rows.insert(0, [(f"{i:03}", info, False) for i, info in enumerate(infos)])
        found = [rows.file(i, "") for i in range(100)]
        assert all(file is not None for file in found)
        assert len(module._storage_classes) == 64
    finally:
        module._storage_classes[:] = known


def test_a_known_name_takes_few_bytes() -> None:
    """At most 350, of which 200 are for the kernel's inode."""
    count = 20_000
    tracemalloc.start()
    try:
        directories = Directories(1.0)
        inodes = Inodes(directories.have(""))
        learn(directories, count)
        assert tracemalloc.get_traced_memory()[0] < 150 * count
        hold(directories, inodes)
        assert tracemalloc.get_traced_memory()[0] < 350 * count
    finally:
        tracemalloc.stop()
    assert len(inodes) == count + 1

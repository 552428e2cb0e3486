"""How keys become paths: each row of the table in the README, and every odd key."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.conftest import Bucket
from tests.mounting import Mounted, Mounts


def shown(path: Path) -> dict[str, int | None]:
    """Every path below, as readdir tells it: its size, or None for a directory."""
    found: dict[str, int | None] = {}
    for directory, subdirectories, files in os.walk(path):
        below = os.path.relpath(directory, path)
        for name in subdirectories:
            found[os.path.normpath(os.path.join(below, name))] = None
        for name in files:
            size = os.stat(os.path.join(directory, name)).st_size
            found[os.path.normpath(os.path.join(below, name))] = size
    return found


def looked_up(path: Path, names: Iterable[str]) -> dict[str, int | None]:
    """The same for these names, asked for one by one; those that are not there are left out."""
    found: dict[str, int | None] = {}
    for name in names:
        try:
            is_directory = (path / name).is_dir()
            found[name] = None if is_directory else (path / name).stat().st_size
        except FileNotFoundError:
            continue
    return found


ROWS: dict[str, tuple[list[str], dict[str, int | None]]] = {
    "plain": (["a", "b"], {"a": 1, "b": 2}),
    "implicit directories": (["x/y/z"], {"x": None, "x/y": None, "x/y/z": 1}),
    "marker": (["d/"], {"d": None}),
    "marker and files": (["d/", "d/a"], {"d": None, "d/a": 2}),
    "marker deep down": (["d/e/f/"], {"d": None, "d/e": None, "d/e/f": None}),
    "directory shadows file": (["a", "a/b"], {"a": None, "a/b": 2}),
    "marker shadows file": (["a", "a/"], {"a": None}),
    "shadowed with names between": (
        ["a", "a-", "a.b", "a/b"],
        {"a": None, "a-": 2, "a.b": 3, "a/b": 4},
    ),
    "prefixes of each other": (
        ["a", "a-", "a-/x", "a/x", "a0", "a0/x", "ab"],
        {"a": None, "a/x": 4, "a-": None, "a-/x": 3, "a0": None, "a0/x": 6, "ab": 7},
    ),
    "double slash": (["a//b", "a/c"], {"a": None, "a/c": 2}),
    "only a double slash": (["a//b"], {"a": None}),
    "leading slash": (["/a", "b"], {"b": 2}),
    "dot": (["./a", "b/./c", "b/d"], {"b": None, "b/d": 3}),
    "dot dot": (["../a", "b/../c", "b/.."], {"b": None}),
    "dots in names": (["...", ".hidden", "a.", ".."], {"...": 1, ".hidden": 2, "a.": 3}),
    "255 bytes": (
        ["n" * 255, "d" * 255 + "/x"],
        {"n" * 255: 1, "d" * 255: None, "d" * 255 + "/x": 2},
    ),
    "256 bytes": (["n" * 256, "d" * 256 + "/x", "ok"], {"ok": 3}),
    "255 characters, 510 bytes": (["é" * 255, "é" * 127], {"é" * 127: 2}),
    "spaces": ([" ", "  a ", "b /c"], {" ": 1, "  a ": 2, "b ": None, "b /c": 3}),
    "scripts": (
        ["Ελλάδα", "Россия/Москва", "中国", "עברית", "العربية", "हिन्दी", "ไทย"],
        {"Ελλάδα": 1, "Россия": None, "Россия/Москва": 2, "中国": 3, "עברית": 4, "العربية": 5,
         "हिन्दी": 6, "ไทย": 7},
    ),
    "emoji": (["🦆", "👩‍👩‍👧/🏳️‍🌈"], {"🦆": 1, "👩‍👩‍👧": None, "👩‍👩‍👧/🏳️‍🌈": 2}),
    "composed and decomposed": (["é", "e\u0301"], {"é": 1, "e\u0301": 2}),
    "case": (["A", "a"], {"A": 1, "a": 2}),
    "behind the BMP": (["\uffee", "\U00010000", "z"], {"\uffee": 1, "\U00010000": 2, "z": 3}),
    "control characters": (
        ["a\nb", "a\tb", "\x01", "\x7f"],
        {"a\nb": 1, "a\tb": 2, "\x01": 3, "\x7f": 4},
    ),
    "for URLs": (["a%20b", "a+b", "a&b=c", "a?b#c", "a%2Fb"],
                 {"a%20b": 1, "a+b": 2, "a&b=c": 3, "a?b#c": 4, "a%2Fb": 5}),
    "for shells": (["-rf", "$(x)", "`y`", "a;b", "*", "\\", "'\""],
                   {"-rf": 1, "$(x)": 2, "`y`": 3, "a;b": 4, "*": 5, "\\": 6, "'\"": 7}),
    "for XML": (["<a>", "a&amp;b", "]]>"], {"<a>": 1, "a&amp;b": 2, "]]>": 3}),
}  # fmt: skip


@pytest.fixture(scope="module")
def rows_bucket(module_bucket: Bucket) -> Bucket:
    """Each row's keys below a directory of its own: the key number n holds n bytes."""
    module_bucket.put(
        {
            f"{row:02}/{key}": b"x" * number
            for row, (keys, _) in enumerate(ROWS.values())
            for number, key in enumerate(keys, 1)
        }
    )
    return module_bucket


@pytest.fixture(scope="module")
def table(rows_bucket: Bucket, module_mount: Mounts) -> Mounted:
    mounted = module_mount(rows_bucket.name)
    mounted.expect("cannot be shown")
    return mounted


@pytest.fixture(scope="module")
def dark_table(rows_bucket: Bucket, module_mount: Mounts) -> Mounted:
    """The same in the dark: each lookup asks, and nothing is listed."""
    return module_mount(rows_bucket.name, "--metadata-ttl", "0", "--negative-ttl", "0")


@pytest.mark.parametrize("row", ROWS)
def test_row(row: str, table: Mounted) -> None:
    path = table.path / f"{list(ROWS).index(row):02}"
    assert shown(path) == ROWS[row][1]


@pytest.mark.parametrize("row", ROWS)
def test_row_looked_up_by_name(row: str, dark_table: Mounted) -> None:
    keys, expected = ROWS[row]
    names = [name for name in {*keys, *expected} if is_a_path(name)]
    path = dark_table.path / f"{list(ROWS).index(row):02}"
    assert looked_up(path, names) == {name: expected[name] for name in names if name in expected}


def is_a_path(key: str) -> bool:
    """Whether open(2) would take the key as it is for the path of that very key."""
    parts = key.split("/")
    return all(part not in {"", ".", ".."} and len(part.encode()) <= 255 for part in parts)


@pytest.mark.parametrize("name", ["n" * 256, "é" * 128])
def test_too_long_a_name_is_refused(name: str, table: Mounted) -> None:
    with pytest.raises(OSError, match="File name too long"):
        (table.path / name).stat()


def test_bytes_that_are_no_utf8_are_not_there(table: Mounted) -> None:
    assert not os.path.exists(os.fsencode(table.path) + b"/caf\xe9")


def test_nul_in_a_key_is_left_out(bucket: Bucket, mount: Mounts) -> None:
    bucket.put({"good": b"1"})
    url = f"{bucket.server.endpoint_url}/{bucket.name}/{quote('bad' + chr(0) + 'name')}"
    request = urllib.request.Request(url, b"x", {"Authorization": "AWS test:any"}, method="PUT")
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200
    assert any("\0" in key for key in bucket.contents())
    mounted = mount(bucket.name)
    mounted.expect("cannot be shown")
    assert os.listdir(mounted.path) == ["good"]


def test_dot_and_dot_dot(table: Mounted) -> None:
    path = table.path / f"{list(ROWS).index('implicit directories'):02}"
    inner = path / "x/y"
    assert (inner / ".").stat().st_ino == inner.stat().st_ino
    assert (inner / "..").stat().st_ino == (path / "x").stat().st_ino
    assert (inner / "../../x/y/z").read_bytes() == b"x"
    names = subprocess.run(["ls", "-ai", inner], capture_output=True, text=True, check=True)
    inos = {name: int(ino) for ino, name in map(str.split, names.stdout.splitlines())}
    assert inos["."] == inner.stat().st_ino
    assert inos[".."] == (path / "x").stat().st_ino
    assert (table.path / "..").stat().st_ino == table.path.parent.stat().st_ino


def test_a_file_is_no_directory(table: Mounted) -> None:
    path = table.path / "00"
    with pytest.raises(NotADirectoryError):
        (path / "a/b").stat()
    with pytest.raises(NotADirectoryError):
        os.listdir(path / "a")
    with pytest.raises(IsADirectoryError):
        path.read_bytes()


# --- many names ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_names() -> list[str]:
    """Names for more than two pages, among them ones that a page's end cuts in two."""
    names = [f"{number:04}" for number in range(2_000)]
    return names + [f"{number:04}/x" for number in range(0, 2_000, 100)] + ["0999-", "0999.x"]


@pytest.fixture(scope="module")
def long_mounted(module_bucket: Bucket, module_mount: Mounts, long_names: list[str]) -> Mounted:
    module_bucket.put({f"long/{name}": b"" for name in long_names})
    return module_mount(module_bucket.name)


def test_many_names_each_once(long_mounted: Mounted, long_names: list[str]) -> None:
    names = os.listdir(long_mounted.path / "long")
    expected = {name.partition("/")[0] for name in long_names}
    assert len(names) == len(set(names)) == len(expected)
    assert set(names) == expected
    for number in range(0, 2_000, 100):
        assert os.listdir(long_mounted.path / f"long/{number:04}") == ["x"]


def test_a_slow_reader_of_a_directory(long_mounted: Mounted) -> None:
    """readdir in many small steps, with other questions between them."""
    names = []
    with os.scandir(long_mounted.path / "long") as entries:
        for entry in entries:
            names.append(entry.name)
            if len(names) % 100 == 0:
                assert (long_mounted.path / "long" / names[-1]).exists()
                assert not (long_mounted.path / "long" / f"{names[-1]}~").exists()
    assert len(names) == len(set(names)) == 2_002


def test_seekdir_and_rewinddir(long_mounted: Mounted) -> None:
    code = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
class Dirent(ctypes.Structure):
    _fields_ = [("ino", ctypes.c_uint64), ("off", ctypes.c_int64), ("reclen", ctypes.c_ushort),
                ("type", ctypes.c_ubyte), ("name", ctypes.c_char * 256)]
libc.opendir.restype = ctypes.c_void_p
libc.readdir.restype = ctypes.POINTER(Dirent)
libc.telldir.restype = ctypes.c_long
libc.telldir.argtypes = libc.readdir.argtypes = libc.rewinddir.argtypes = [ctypes.c_void_p]
libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
d = libc.opendir(os.fsencode(sys.argv[1]))
def rest():
    names = []
    while entry := libc.readdir(d):
        names.append(entry.contents.name)
    return names
first = [libc.readdir(d).contents.name for _ in range(700)]
place = libc.telldir(d)
second = rest()
assert first[:2] == [b".", b".."] and len(first + second) == 2004, len(first + second)
libc.seekdir(d, place)
assert rest() == second
libc.rewinddir(d)
assert rest() == first + second
libc.seekdir(d, place)
assert rest() == second
"""
    subprocess.run([sys.executable, "-c", code, long_mounted.path / "long"], check=True)


def test_removal_behind_our_back_while_listing(bucket: Bucket, mount: Mounts) -> None:
    """Those that stay are each shown once, whatever else happens meanwhile."""
    names = [f"{number:03}" for number in range(600)]
    bucket.put({f"d/{name}": b"" for name in names})
    mounted = mount(bucket.name, "--metadata-ttl", "0", "--negative-ttl", "0")
    seen = []
    with os.scandir(mounted.path / "d") as entries:
        for entry in entries:
            seen.append(entry.name)
            if len(seen) == 10:
                bucket.delete("d/000", "d/005", "d/300", "d/599")
                assert not (mounted.path / "d/300").exists()
    assert len(seen) == len(set(seen))
    assert set(names) - {"000", "005", "300", "599"} <= set(seen) <= set(names)
    assert len(os.listdir(mounted.path / "d")) == 596


# --- a prefix -----------------------------------------------------------------------------


def test_mount_of_a_prefix(bucket: Bucket, mount: Mounts) -> None:
    bucket.put({"a": b"", "a/": b"", "a/b/c": b"1", "a/b-": b"", "a/b0": b"", "a-/x": b""})
    mounted = mount(f"{bucket.name}/a/b")
    assert shown(mounted.path) == {"c": 1}
    assert (mounted.path / "c").read_bytes() == b"1"
    with_slash = mount(f"s3://{bucket.name}/a/")
    assert shown(with_slash.path) == {"b": None, "b/c": 1, "b-": 0, "b0": 0}


def test_mount_of_an_odd_prefix(bucket: Bucket, mount: Mounts) -> None:
    bucket.put({"my logs/ä, b/c.txt": b"c"})
    mounted = mount(f"{bucket.name}/my logs/ä, b")
    assert (mounted.path / "c.txt").read_bytes() == b"c"


def test_mount_of_a_prefix_without_keys_is_an_empty_directory(
    bucket: Bucket, mount: Mounts
) -> None:
    bucket.put({"a": b""})
    mounted = mount(f"{bucket.name}/nothing")
    assert os.listdir(mounted.path) == []
    bucket.put({"nothing/yet": b"now"})
    mounted = mount(f"{bucket.name}/nothing")
    assert (mounted.path / "yet").read_bytes() == b"now"

"""Small worlds of awkward keys, and what is true in them, told the slow and plain way.

`children` is the reference: it looks at every key of the bucket. `pages` cuts a listing
anywhere. Both are written from S3's rules alone, not from the code under test.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from hypothesis import strategies as st

from s3mount.model import ListPage, ObjectInfo

# Names that sort around "/", prefixes of each other, and names that no path can show.
GOOD_NAMES = ("a", "a-", "a.b", "a0", "ab", "b", "é", "\U0001f600", "-x", " ", "n" * 255)
BAD_NAMES = ("", ".", "..", "x\0y", "n" * 256, "é" * 128)

# Mostly a few names, so that keys meet: files below files, markers, shadowed names.
odd_names = st.one_of(
    st.sampled_from(("a", "a-", "b", "")), st.sampled_from(GOOD_NAMES + BAD_NAMES)
)
keys = st.lists(odd_names, min_size=1, max_size=4).map("/".join).filter(bool)
prefixes = st.sampled_from(["", "a/", "a/b/", "a//", "top/"])


def info(key: str, version: int = 0) -> ObjectInfo:
    """An object; another version is other bytes."""
    return ObjectInfo(key, version, f'"{version}"', 10**9 * version)


def is_good(name: str) -> bool:
    """Whether a path can show the name, said another way than the code does."""
    return name not in {"", ".", ".."} and "\0" not in name and len(name.encode()) < 256


@dataclass
class Children:
    """All that a directory holds."""

    files: dict[str, ObjectInfo] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)
    marker: ObjectInfo | None = None

    def within(self, lo: str, hi: str) -> tuple[dict[str, ObjectInfo], set[str]]:
        """Files and directories whose positions lie in [lo, hi)."""
        files = {name: found for name, found in self.files.items() if lo <= name < hi}
        return files, {name for name in self.directories if lo <= name + "/" < hi}


def children(world: Mapping[str, ObjectInfo], prefix: str) -> Children:
    """The directory `prefix`, from every key there is."""
    result = Children()
    for key, found in world.items():
        if not key.startswith(prefix):
            continue
        name, slash, _ = key[len(prefix) :].partition("/")
        if key == prefix:
            result.marker = found
        elif is_good(name) and slash:
            result.directories.add(name)
        elif is_good(name):
            result.files[name] = found
    return result


def directories(world: Iterable[str], prefix: str) -> set[str]:
    """Every directory below `prefix` that a path leads to, itself included."""
    found = {prefix}
    for key in world:
        if key.startswith(prefix):
            here = prefix
            for name in key[len(prefix) :].split("/")[:-1]:
                if not is_good(name):
                    break
                here += name + "/"
                found.add(here)
    return found


def listed(
    world: Mapping[str, ObjectInfo], prefix: str, delimiter: str, start_after: str
) -> list[str]:
    """The keys and common prefixes of a listing, in order, as ListObjectsV2 defines them."""
    shown = set()
    for key in world:
        if key.startswith(prefix) and key > start_after:
            head, found, _ = key[len(prefix) :].partition(delimiter or "\0never\0")
            shown.add(prefix + head + delimiter if found else key)
    return sorted(shown)


def pages(
    world: Mapping[str, ObjectInfo],
    prefix: str,
    delimiter: str,
    start_after: str,
    sizes: Iterator[int],
) -> Iterator[ListPage]:
    """The listing in pages; `sizes` says how many entries each has."""
    rest = listed(world, prefix, delimiter, start_after)
    while True:
        size = next(sizes)
        page, rest = rest[:size], rest[size:]
        objects = [world[key] for key in page if not (delimiter and _is_common(key, prefix))]
        commons = [key for key in page if delimiter and _is_common(key, prefix)]
        yield ListPage(objects, commons, "token" if rest else None)
        if not rest:
            return


def _is_common(key: str, prefix: str) -> bool:
    return "/" in key[len(prefix) :]

"""Pages of keys -> what they tell of each directory.

A page of a listing, with or without a delimiter, is cut into chapters: one for
each directory that it tells something of. A chapter holds the directory's files
and subdirectories within one interval of its *suffixes* (what follows the
directory's prefix in a key), and says that nothing else is there.

Within a directory's suffix order a file `name` stands at "name" and a
subdirectory at "name/". The two are apart: "name-x" and "name.x" lie between.

Names that a path cannot show (see `is_showable`) are left out and counted.

Pure: knows no inodes, no clock, no requests.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from s3mount.model import ListPage, ObjectInfo
from s3mount.namespace.known import END, START, after

DELIMITER = "/"
NAME_MAX = 255  # bytes; NAME_MAX of Linux, and of every name that FUSE carries
KEY_MAX = 1024  # bytes; S3's limit for a key


def is_showable(name: str) -> bool:
    """Whether a path component can be `name`: not "", ".", "..", with NUL or over 255 bytes."""
    if not name or name in {".", ".."} or "\0" in name:
        return False
    # A character has at most 4 bytes in UTF-8: most names need no encoding to be told short.
    return len(name) * 4 <= NAME_MAX or len(name.encode("utf-8", "surrogatepass")) <= NAME_MAX


def is_short(key: str) -> bool:
    """Whether S3 can have such a key: of at most 1,024 bytes."""
    return len(key) * 4 <= KEY_MAX or len(key.encode("utf-8", "surrogatepass")) <= KEY_MAX


@dataclass(slots=True)
class Chapter:
    """What a page tells of the directory `prefix` within the suffixes [lo, hi)."""

    prefix: str
    lo: str
    hi: str = END
    files: dict[str, ObjectInfo] = field(default_factory=dict)  # by name, in key order
    directories: dict[str, None] = field(default_factory=dict)  # names, in key order
    marker: ObjectInfo | None = None  # the object whose key is the prefix itself
    hidden: int = 0  # keys that no path can show

    def between(self, lo: str, hi: str) -> Chapter:
        """What it tells of [lo, hi), which lies within its own interval."""
        return Chapter(
            self.prefix,
            lo,
            hi,
            {name: info for name, info in self.files.items() if lo <= name < hi},
            {name: None for name in self.directories if lo <= name + DELIMITER < hi},
            self.marker if lo == START else None,
        )


def delimited(page: ListPage, prefix: str, lo: str) -> Chapter:
    """The chapter of a page that was listed with the delimiter "/".

    `prefix` is the directory's ("" or ending in "/"), `lo` the suffix from which the
    request asked on (inclusive).
    """
    cut = len(prefix)
    chapter = Chapter(prefix, lo)
    if page.next_token is not None:
        chapter.hi = max(after(page.last[cut:]), lo)
    for info in page.objects:
        suffix = info.key[cut:]
        if not suffix:
            chapter.marker = info
        elif suffix >= lo:
            _add_file(chapter, suffix, info)
    for common in page.prefixes:
        suffix = common[cut:]
        if suffix >= lo:
            _add_directory(chapter, suffix[:-1])
    return chapter


def flat(page: ListPage, prefix: str, lo: str) -> list[Chapter]:
    """The chapters of a page that was listed without a delimiter, the top one first.

    Every directory between the page's first and last key is told of; those on the
    way to an edge only in part. `prefix` and `lo` as in `delimited`; here `lo` may lie
    within a subdirectory.
    """
    cut = len(prefix)
    hi = END if page.next_token is None else max(after(page.last[cut:]), lo)
    chapters = _begun(prefix, lo, hi)
    chapter: Chapter | None = chapters[""]
    directory, length = "", 0  # of the chapter: most keys go on in the one of the key before
    for info in page.objects:
        suffix = info.key[cut:]
        if suffix < lo:
            continue
        behind = suffix.rfind(DELIMITER) + 1
        if behind != length or not suffix.startswith(directory):
            directory, length = suffix[:behind], behind
            found = chapters.get(directory)
            chapter = found or _open_chapter(chapters, prefix, directory, lo, hi)
        if chapter is None:
            chapters[""].hidden += 1
        elif name := suffix[behind:]:
            # What `is_showable` says of most, without asking it: a call costs as much as the rest.
            if len(name) * 4 <= NAME_MAX and name[0] != "." and "\0" not in name:
                chapter.files[name] = info
            else:
                _add_file(chapter, name, info)
        else:
            chapter.marker = info
    return list(chapters.values())


def _begun(prefix: str, lo: str, hi: str) -> dict[str, Chapter]:
    """The chapters of the top, and of the directories that `lo` lies in.

    The page before began those. When it ended with the last key of one, this page
    holds nothing of it, and that is what ends its chapter.
    """
    chapters = {"": _edged(prefix, "", lo, hi)}
    start = 0
    while 0 <= (slash := lo.find(DELIMITER, start)) < len(lo) - 1:
        if not is_showable(lo[start:slash]):
            break
        start = slash + 1
        chapters[lo[:start]] = _edged(prefix, lo[:start], lo, hi)
    return chapters


def _open_chapter(
    chapters: dict[str, Chapter], prefix: str, directory: str, lo: str, hi: str
) -> Chapter | None:
    """The chapter of `directory` ("a/b/"), made with those above it; None when not showable."""
    parent_name = directory[:-1].rpartition(DELIMITER)
    parent = parent_name[0] + parent_name[1]
    name = parent_name[2]
    above = chapters.get(parent) or _open_chapter(chapters, prefix, parent, lo, hi)
    if above is None or not is_showable(name):
        return None
    above.directories[name] = None
    chapters[directory] = chapter = _edged(prefix, directory, lo, hi)
    return chapter


def _edged(prefix: str, directory: str, lo: str, hi: str) -> Chapter:
    """An empty chapter of `directory`, bounded by the page's [lo, hi) where that cuts it."""
    cut = len(directory)
    chapter = Chapter(prefix + directory, START)
    if lo.startswith(directory):
        chapter.lo = _whole_component(lo[cut:])
    if hi.startswith(directory) and hi != END:
        chapter.hi = _whole_component(hi[cut:])
    return chapter


def _whole_component(suffix: str) -> str:
    """`suffix`, where it lies within a subdirectory, moved behind that subdirectory's position.

    At the lower edge, the page before told of the subdirectory; at the upper one,
    the page's last key tells that it is there.
    """
    name, slash, rest = suffix.partition(DELIMITER)
    return after(name + slash) if rest else suffix


def _add_file(chapter: Chapter, name: str, info: ObjectInfo) -> None:
    if is_showable(name):
        chapter.files[name] = info
    else:
        chapter.hidden += 1


def _add_directory(chapter: Chapter, name: str) -> None:
    if is_showable(name):
        chapter.directories[name] = None
    else:
        chapter.hidden += 1

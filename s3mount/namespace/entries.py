"""The entries of one directory, in shown order, in columns.

A directory of a million files is a million rows here. As a dict of objects each would
take some 800 bytes; a row takes 53 beside its name (the ETag as 16 bytes and a part count,
numbers unboxed), and rows are found by bisection.

A row may be a file, a directory, or both (the directory is the one shown; the file
comes back when the directory goes).

INVARIANT: the columns have one row per name, sorted by name + "/".
Pure: knows no intervals, clock or requests.
"""

from __future__ import annotations

import json
import re
import struct
from array import array
from bisect import bisect_left
from collections.abc import Sequence

from s3mount.model import ObjectInfo

DELIMITER = "/"

_FILE = 1
_DIRECTORY = 2
_CLASS_SHIFT = 2  # above the two bits: which storage class

# MD5 of the object, or of its parts' MD5s and their number:
# https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html
_PLAIN_ETAG = re.compile(r'"([0-9a-f]{32})(?:-([1-9][0-9]{0,8}))?"')
_MD5_LENGTH = 34  # with its quotes
_MD5S = re.compile(r'(?:"[0-9a-f]{32}")+')
_ETAG = struct.Struct("<16sI")
_NO_PARTS = "00000000"  # the part count 0 of `_ETAG` in hex
_ODD = 0xFFFFFFFF  # the part count of an ETag of another form: kept by name
_NO_FILE = ObjectInfo("", 0, '"' + "0" * 32 + '"', 0)  # what is packed where there is none

_PACKED = struct.Struct("<III")  # rows, bytes of the head, bytes of the names
_DIRECTORY_KINDS = bytes(kind for kind in range(256) if kind & _DIRECTORY)

_storage_classes: list[str] = ["STANDARD"]  # of all directories; S3 has about ten


def shown_at(name: str) -> str:
    """The position of `name` in the order in which entries are shown."""
    return name + DELIMITER


class Entries:
    """Files and subdirectories by name, with the inode numbers they were given."""

    __slots__ = (
        "_etags",
        "_inos",
        "_kinds",
        "_last",
        "_mtimes",
        "_odd",
        "_sizes",
        "directories",
        "names",
    )

    def __init__(self) -> None:
        self.names: list[str] = []
        self.directories = 0  # how many rows are directories
        self._kinds = bytearray()
        self._sizes = array("q")
        self._mtimes = array("q")
        self._etags = bytearray()
        self._inos = array("Q")  # 0: none was given
        self._odd: dict[str, str] = {}
        self._last = 0  # the row found last

    def __len__(self) -> int:
        return len(self.names)

    def at(self, position: str, lo: int = 0) -> int:
        """The index of the first row shown at or behind `position`."""
        return bisect_left(self.names, position, lo, key=shown_at)

    def find(self, name: str) -> int:
        """The index of the row, or -1. Quick for the name found last, and the one behind it."""
        for i in (self._last, self._last + 1):
            if i < len(self.names) and self.names[i] == name:
                self._last = i
                return i
        i = bisect_left(self.names, shown_at(name), key=shown_at)
        if i < len(self.names) and self.names[i] == name:
            self._last = i
            return i
        return -1

    # --- one row ------------------------------------------------------------------

    def is_directory(self, i: int) -> bool:
        """Whether the row is a directory; it may be a file as well, which is not shown."""
        return bool(self._kinds[i] & _DIRECTORY)

    def is_file(self, i: int) -> bool:
        """Whether the row is a file, shown or not."""
        return bool(self._kinds[i] & _FILE)

    def file(self, i: int, prefix: str) -> ObjectInfo | None:
        """The file of the row, in the directory `prefix`; None when it is none."""
        kind = self._kinds[i]
        if not kind & _FILE:
            return None
        name = self.names[i]
        return ObjectInfo(
            prefix + name,
            self._sizes[i],
            self._etag(i),
            self._mtimes[i],
            _storage_classes[kind >> _CLASS_SHIFT],
        )

    def size_and_mtime(self, i: int) -> tuple[int, int] | None:
        """Of the file that the row shows, bytes and nanoseconds; None when it is a directory."""
        return None if self._kinds[i] & _DIRECTORY else (self._sizes[i], self._mtimes[i])

    def set_file(self, i: int, info: ObjectInfo) -> None:
        """The row is this file (too)."""
        self._kinds[i] = self._kinds[i] & _DIRECTORY | _file_kind(info)
        self._sizes[i] = info.size
        self._mtimes[i] = info.mtime_ns
        at = i * _ETAG.size
        self._etags[at : at + _ETAG.size] = self._packed(self.names[i], info.etag)

    def unset_file(self, i: int) -> None:
        """The row is no file any more."""
        self._kinds[i] &= _DIRECTORY
        self._odd.pop(self.names[i], None)

    def set_directory(self, i: int, *, is_directory: bool) -> None:
        """The row is a directory (too), or no longer."""
        self.directories += is_directory - self.is_directory(i)
        self._kinds[i] = self._kinds[i] & ~_DIRECTORY | (_DIRECTORY if is_directory else 0)

    def ino(self, i: int) -> int:
        """The inode number given to what the row shows; 0 for none."""
        return self._inos[i]

    def set_ino(self, i: int, ino: int) -> None:
        """What the row shows has this inode number."""
        self._inos[i] = ino

    # --- many rows ------------------------------------------------------------------

    def insert(self, i: int, rows: Sequence[tuple[str, ObjectInfo | None, bool]]) -> None:
        """New rows before the row `i`: (name, file, is a directory), in order."""
        names = [name for name, _, _ in rows]
        files = [info or _NO_FILE for _, info, _ in rows]
        self.directories += sum([is_directory for _, _, is_directory in rows])
        self.names[i:i] = names
        self._kinds[i:i] = bytes(
            [
                (_DIRECTORY if is_directory else 0) | (_file_kind(info) if info else 0)
                for _, info, is_directory in rows
            ]
        )
        self._sizes[i:i] = array("q", [info.size for info in files])
        self._mtimes[i:i] = array("q", [info.mtime_ns for info in files])
        at = i * _ETAG.size
        self._etags[at:at] = self._all_packed(names, [info.etag for info in files])
        self._inos[i:i] = array("Q", bytes(8 * len(names)))

    def drop_empty(self, i: int, j: int) -> None:
        """Remove the rows of [i, j) that are neither file nor directory any more."""
        kept = [k for k in range(i, j) if self._kinds[k] & (_FILE | _DIRECTORY)]
        if len(kept) == j - i:
            return
        width = _ETAG.size
        etags = b"".join(self._etags[k * width : (k + 1) * width] for k in kept)
        self.names[i:j] = [self.names[k] for k in kept]
        self._kinds[i:j] = bytes(self._kinds[k] for k in kept)
        self._sizes[i:j] = array("q", [self._sizes[k] for k in kept])
        self._mtimes[i:j] = array("q", [self._mtimes[k] for k in kept])
        self._etags[i * width : j * width] = etags
        self._inos[i:j] = array("Q", [self._inos[k] for k in kept])

    # --- as bytes -------------------------------------------------------------------

    def packed(self, i: int, j: int) -> bytes:
        """The rows [i, j) as bytes, without their inode numbers."""
        rows = self.names[i:j]
        odd = {name: self._odd[name] for name in rows if name in self._odd} if self._odd else {}
        head = json.dumps([_storage_classes, odd]).encode()
        names = "\0".join(rows).encode("utf-8", "surrogatepass")
        width = _ETAG.size
        return b"".join(
            (
                _PACKED.pack(len(rows), len(head), len(names)),
                head,
                names,
                self._kinds[i:j],
                self._sizes[i:j],
                self._mtimes[i:j],
                self._etags[i * width : j * width],
            )
        )

    def append(self, packed: memoryview) -> bool:
        """Add rows behind all others; False, and nothing is added, where they do not belong."""
        count, head, length = _PACKED.unpack_from(packed)
        start = _PACKED.size
        classes, odd = json.loads(bytes(packed[start : start + head]))
        start += head
        text = bytes(packed[start : start + length]).decode("utf-8", "surrogatepass")
        names = text.split("\0") if count else []
        if names and self.names and shown_at(names[0]) <= shown_at(self.names[-1]):
            return False
        start += length
        ends = [start + count * width for width in (1, 9, 17, 17 + _ETAG.size)]
        kinds = bytes(packed[start : ends[0]]).translate(_renumbered(classes))
        self.names += names
        self._kinds += kinds
        self._sizes.frombytes(packed[ends[0] : ends[1]])
        self._mtimes.frombytes(packed[ends[1] : ends[2]])
        self._etags += packed[ends[2] : ends[3]]
        self._inos.frombytes(bytes(8 * count))
        self._odd |= odd
        self.directories += count - len(kinds.translate(None, _DIRECTORY_KINDS))
        return True

    # --- ETags ----------------------------------------------------------------------

    def _all_packed(self, names: list[str], etags: list[str]) -> bytes:
        """The same for many names: in one step where all are MD5s, as most are."""
        text = "".join(etags)
        if set(map(len, etags)) == {_MD5_LENGTH} and _MD5S.fullmatch(text) and not self._odd:
            return bytes.fromhex(text[1:-1].replace('""', _NO_PARTS) + _NO_PARTS)
        return b"".join(map(self._packed, names, etags))

    def _packed(self, name: str, etag: str) -> bytes:
        plain = _PLAIN_ETAG.fullmatch(etag)
        if plain is None:
            self._odd[name] = etag
            return _ETAG.pack(bytes(16), _ODD)
        self._odd.pop(name, None)
        return _ETAG.pack(bytes.fromhex(plain[1]), int(plain[2] or 0))

    def _etag(self, i: int) -> str:
        digest, parts = _ETAG.unpack_from(self._etags, i * _ETAG.size)
        if parts == _ODD:
            return self._odd[self.names[i]]
        return f'"{digest.hex()}-{parts}"' if parts else f'"{digest.hex()}"'


def _file_kind(info: ObjectInfo) -> int:
    """The bits of a file of this storage class."""
    return _FILE | _class_number(info.storage_class) << _CLASS_SHIFT


def _class_number(storage_class: str) -> int:
    try:
        return _storage_classes.index(storage_class)
    except ValueError:
        number = len(_storage_classes)
        if number << _CLASS_SHIFT > 255:  # an endpoint that invents them: the last one stands
            return number - 1
        _storage_classes.append(storage_class)
        return number


def _renumbered(classes: list[str]) -> bytes | None:
    """The table that turns kinds numbered by these storage classes into ours; None: the same."""
    if classes == _storage_classes[: len(classes)]:
        return None
    numbers = [_class_number(name) for name in classes]
    numbers += [0] * ((256 >> _CLASS_SHIFT) - len(numbers))
    low = (1 << _CLASS_SHIFT) - 1
    return bytes(kind & low | numbers[kind >> _CLASS_SHIFT] << _CLASS_SHIFT for kind in range(256))

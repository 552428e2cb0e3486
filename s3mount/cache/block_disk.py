"""Values of the cache in plain files: many written in one call, each checked on every read.

A `diskcache.Disk` is how diskcache turns keys and values into columns and files.
This one keeps the blocks that are written together in one file, one behind the other and
nothing else, and in the row's `value` column where in it and what the bytes must be:
their offset, their length and a checksum.

INVARIANTS
- `read_into` says True only for a buffer that it filled wholly with the bytes that
  were stored under that key. The checksum is seeded with the key, so neither a
  flipped bit, nor a short or swapped file, nor a row that a damaged index gives for
  another key can pass.
- Nothing is ever pickled or unpickled, neither keys nor values (CVE-2025-69872).
- A value file has a random name that no row holds before it is written whole, and
  it is never written again. So it needs no temporary name and no rename: a file is
  reachable when its rows are committed, and is an orphan to be swept until then.
- A value file has no holes: it is as long as its blocks together.

Large values go past the page cache, both ways, where the filesystem lets them (O_DIRECT):
it saves a copy and the page cache's own work, 0.3 s of CPU per GiB read and 0.6 per GiB
written, and leaves the memory of the machine to others. The kernel keeps what is read
through the mount anyway.

All values are in files, however small: for rows of 16 KiB, SQLite with the value inside
took 42 us to write and 42 us to delete a row, a file with its row 18 us and 7 us;
reading costs the same 10 us. (64 rows a transaction, WAL, ext4.)

Knows no S3, no trio, and no policy of what is kept.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from diskcache import UNKNOWN, Disk
from xxhash import xxh3_64_intdigest

Buffer = bytes | bytearray | memoryview

# The `mode` column of a value in a file; diskcache.core.MODE_BINARY, which it does not export.
MODE_BINARY = 2

# What a file occupies is a multiple of this on every common filesystem.
DISK_BLOCK = 4096

# Shorter values go through the page cache: they are read again soon, and without a thread.
MIN_DIRECT = 512 << 10

_IOV_MAX = os.sysconf("SC_IOV_MAX")

DIGEST_SIZE = 16  # bytes of the digest that stands for a key

_LABEL = struct.Struct("<QQQ")  # offset in the file, length in bytes, checksum
LABEL_SIZE = _LABEL.size
# What is longer was given by a layout of before, and is there to be swept.
_FILENAME = re.compile(r"[0-9a-f]{2}/([0-9a-f]{14}|[0-9a-f]{30}-[0-9a-f]{8})")


class BadRow(Exception):
    """A row that this class cannot have written, or a value file that is not the row's."""


class StoredBlock(NamedTuple):
    """A part of a value file: where it is, and what must be in it."""

    filename: str  # relative to the cache directory
    offset: int
    length: int  # bytes
    checksum: int  # xxh3_64, seeded with the key


@lru_cache(512)  # each row's is asked for several times while it is written or read
def key_digest(key: str) -> bytes:
    """The 16 bytes that stand for `key` in the database.

    A cryptographic hash: that two keys never meet in one digest must also hold for
    keys that somebody chose. It halves the database: keys are long, and each is
    in the table and in its index.
    """
    if type(key) is not str:
        raise TypeError(f"a cache key must be str, not {type(key).__name__}")
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=DIGEST_SIZE).digest()


def checksum(digest: bytes, data: Buffer) -> int:
    """xxh3_64 of `data`, seeded with the key: 22 us for 1 MiB."""
    return xxh3_64_intdigest(data, int.from_bytes(digest[:8], "little"))


def disk_usage(length: int) -> int:
    """What a file of that many bytes occupies."""
    return -(-length // DISK_BLOCK) * DISK_BLOCK


def is_value_name(filename: str) -> bool:
    """Whether a path relative to the cache directory is one that `BlockDisk` gives."""
    return _FILENAME.fullmatch(filename) is not None


class BlockDisk(Disk):  # type: ignore[misc]  # diskcache ships no types
    """Keys are `str`, values are bytes in files."""

    _directory: str
    is_direct = True  # until the filesystem refuses to go past the page cache

    def put(self, key: str) -> tuple[bytes, bool]:
        """The columns `key` and `raw` for a key. Raises TypeError unless it is a `str`."""
        return key_digest(key), True

    def get(self, key: object, raw: object) -> bytes:
        """The digest of a key, from its columns. Raises `BadRow`: pickled keys are refused."""
        if type(key) is not bytes or len(key) != DIGEST_SIZE or not raw:
            raise BadRow("a key that is no digest")
        return key

    def filename(self, key: object = UNKNOWN, value: object = UNKNOWN) -> tuple[str, str]:
        """A new name for a value file: relative to the directory, and the full path.

        In one of 16 directories, from "00" to "0f": with 256, as many as there are files of
        a GiB, making them was half of what making the files cost.
        """
        name = os.urandom(8).hex()
        filename = f"0{name[0]}/{name[2:]}"
        return filename, f"{self._directory}/{filename}"

    def write(
        self, values: Sequence[tuple[str, Buffer]], *, hurry: bool = False
    ) -> list[tuple[str, StoredBlock]]:
        """Write values, by key, to one new file. Raises OSError, and then leaves no file behind.

        One file, as making one costs more than to write a MiB where others were removed lately.
        `hurry`: through the page cache, which takes it faster than a slow disk.
        """
        direct, others = self._in_order(values, hurry=hurry)
        digests = [key_digest(key) for key, _ in direct + others]
        filename, path = self.filename()
        fd = self._create(path, goes_direct=bool(direct))
        try:
            left = self._write_directly(fd, [data for _, data in direct]) if direct else []
            left += [data for _, data in others]
            if direct and left:
                fcntl.fcntl(fd, fcntl.F_SETFL, 0)
            _write(fd, left)
        except BaseException:
            self.remove(filename)
            raise
        finally:
            os.close(fd)
        blocks, offset = [], 0
        for digest, (key, data) in zip(digests, direct + others, strict=True):
            check = checksum(digest, data)
            blocks.append((key, StoredBlock(filename, offset, len(data), check)))
            offset += len(data)
        return blocks

    def _in_order(
        self, values: Sequence[tuple[str, Buffer]], *, hurry: bool
    ) -> tuple[list[tuple[str, memoryview]], list[tuple[str, memoryview]]]:
        """The values that go past the page cache, and the others, as they lie in the file.

        Whole disk blocks come first, so that all of them can be read past the page cache.
        """
        direct: list[tuple[str, memoryview]] = []
        others: list[tuple[str, memoryview]] = []
        for key, value in values:
            data = memoryview(value).cast("B")
            goes_direct = not hurry and self._goes_direct(data)
            (direct if goes_direct else others).append((key, data))
        others.sort(key=lambda value: len(value[1]) % DISK_BLOCK != 0)
        return direct, others

    def _create(self, path: str, *, goes_direct: bool) -> int:
        """Create and open a file, and the directory that it needs. Raises OSError."""
        try:
            return _open_new(path, goes_direct=goes_direct)
        except FileNotFoundError:
            # Only the directory of the first byte may be missing. `mkdir` does not bring back
            # the cache directory itself: who removed it wanted it gone.
            _make_directory(os.path.dirname(path))
            return self._create(path, goes_direct=goes_direct)
        except OSError:
            if not goes_direct:
                raise
            # Where O_DIRECT is refused, the file was made.
            _ignoring_os_errors(os.unlink, path)
            fd = _open_new(path, goes_direct=False)  # raises what is not about the page cache
            self.is_direct = False
            return fd

    def store(
        self, value: object, read: bool, key: object = UNKNOWN
    ) -> tuple[int, int, str, bytes]:
        """The columns `size`, `mode`, `filename` and `value` for a value.

        `value` is bytes, or a `StoredBlock` that `write` gave before: so that many
        are written first and one short transaction makes all of them rows.
        `size` is what a file of this block alone occupies.
        """
        if isinstance(value, (bytes, bytearray, memoryview)) and isinstance(key, str) and not read:
            ((_, value),) = self.write([(key, value)])
        if not isinstance(value, StoredBlock):
            raise TypeError(f"a cache value must be bytes, not {type(value).__name__}")
        label = _LABEL.pack(value.offset, value.length, value.checksum)
        return disk_usage(value.length), MODE_BINARY, value.filename, label

    def fetch(self, mode: object, filename: object, value: object, read: object) -> StoredBlock:
        """What a row says of its value file; opens nothing.

        Raises `BadRow` for every row that `store` cannot have made: another mode
        (pickle above all), a name that leads out of the directory, no checksum.
        """
        if mode != MODE_BINARY:
            raise BadRow(f"mode {mode!r} is refused")
        if type(filename) is not str or not is_value_name(filename):
            raise BadRow("a file name that the cache does not give")
        if type(value) is not bytes or len(value) != _LABEL.size:
            raise BadRow("no offset, length and checksum")
        return StoredBlock(filename, *_LABEL.unpack(value))

    def read_into(
        self, digest: bytes, block: StoredBlock, buffer: memoryview, *, wait: bool = True
    ) -> bool:
        """Fill `buffer` with the block; True when its bytes are those that were stored.

        False for a file that is too short or damaged, and for a buffer of another
        length than the block. Raises OSError when the file cannot be read; without `wait`
        also when its bytes are not in the page cache.
        """
        if len(buffer) != block.length:
            return False
        path = f"{self._directory}/{block.filename}"
        if wait and not block.offset % DISK_BLOCK and self._goes_direct(buffer):
            received = self._read_directly(path, buffer, block.offset)
        else:
            received = _read(path, buffer, block.offset, how=0 if wait else os.RWF_NOWAIT)
        return received == block.length and checksum(digest, buffer) == block.checksum

    def remove(self, file_path: str) -> None:
        """Remove a value file, if it is there, and keep its directory for the next."""
        # A row may have been tampered with: what it names must not lead out of the directory.
        if is_value_name(file_path):
            _ignoring_os_errors(os.unlink, f"{self._directory}/{file_path}")

    # --- past the page cache --------------------------------------------------------

    def _goes_direct(self, data: memoryview) -> bool:
        """Whether `data` may go past the page cache: whole pages of memory and of the file."""
        return (
            self.is_direct
            and len(data) >= MIN_DIRECT
            and not (len(data) % DISK_BLOCK or data.readonly)
            and not ctypes.addressof(ctypes.c_char.from_buffer(data)) % DISK_BLOCK
        )

    def _write_directly(self, fd: int, buffers: list[memoryview]) -> list[memoryview]:
        """Write what goes past the page cache in one call; what is left. Raises OSError."""
        try:
            written = os.writev(fd, buffers[:_IOV_MAX])
        except OSError:
            fcntl.fcntl(fd, fcntl.F_SETFL, 0)
            written = os.writev(fd, buffers[:_IOV_MAX])  # a full or broken disk refuses this, too
            self.is_direct = False
        return _behind(buffers, written)

    def _read_directly(self, path: str, buffer: memoryview, offset: int) -> int:
        """Read past the page cache, or through it if that is refused. Raises OSError."""
        try:
            return _read(path, buffer, offset, flags=os.O_DIRECT)
        except FileNotFoundError:
            raise
        except OSError:
            received = _read(path, buffer, offset)  # raises what is not about the page cache
            self.is_direct = False
            return received


def _read(path: str, buffer: memoryview, offset: int, *, flags: int = 0, how: int = 0) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        return os.preadv(fd, (buffer,), offset, how)
    finally:
        os.close(fd)


def _write(fd: int, buffers: list[memoryview]) -> None:
    """Write all, one behind the other, in as few calls as it takes. Raises OSError."""
    while buffers:
        buffers = _behind(buffers, os.writev(fd, buffers[:_IOV_MAX]))


def _behind(buffers: list[memoryview], written: int) -> list[memoryview]:
    """What is left of buffers when so many bytes of them are written."""
    for number, data in enumerate(buffers):
        if written < len(data):
            return [data[written:], *buffers[number + 1 :]]
        written -= len(data)
    return []


def _open_new(path: str, *, goes_direct: bool) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.open(path, flags | os.O_DIRECT if goes_direct else flags, 0o600)


def _make_directory(path: str) -> None:
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return  # another thread or daemon was first


def _ignoring_os_errors(operation: Callable[[str], None], path: str) -> None:
    try:
        operation(path)
    except OSError:
        return

"""What is in the buckets: one bucket per dataset, and a local copy to compare with.

Everything is made from fixed seeds. Datasets of nothing but names have no local copy.
"""

from __future__ import annotations

import gzip
import random
from array import array
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from benchmarks.modelled_s3 import ModelledS3

MIB = 1 << 20
RECORD = 16
FAULT_OBJECTS = 90
FAULT_VERSIONS = 3


def _write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _write_random(path: Path, mebibytes: int, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    source = random.Random(seed)
    with path.open("wb") as file:
        for _ in range(mebibytes):
            file.write(source.randbytes(MIB))
    return path


def _text(size: int, name: str) -> bytes:
    """Lines of hex, with one line near the end that says the file's name."""
    needle = f"needle {name}\n".encode()
    source = random.Random(name)
    body = b"".join(source.randbytes(30).hex().encode() + b"\n" for _ in range(size // 61 + 1))
    cut = max(size - len(needle), 0)
    return (body[:cut] + needle)[:size] if cut else needle


def _big(local: Path) -> None:
    _write_random(local / "big.bin", 1024, 1)


def _four(local: Path) -> None:
    for number in range(4):
        _write_random(local / f"stream{number}.bin", 256, 10 + number)


def _archive(local: Path) -> None:
    text = _text(16 * MIB, "archive")
    local.mkdir(parents=True)
    with gzip.GzipFile(local / "big.gz", "wb", compresslevel=1, mtime=0) as file:
        for _ in range(24):
            file.write(text)


def _deep(local: Path) -> None:
    for number in range(20):
        _write_random(local / f"d{number:02d}" / "file.bin", 1, 100 + number)


def _small(local: Path) -> None:
    for number in range(1000):
        name = f"file{number:04d}.txt"
        _write(local / "dir" / name, _text(16384, name))


def _tree(directories: int, files: int) -> Callable[[Path], None]:
    def write(local: Path) -> None:
        for directory in range(directories):
            for file in range(files):
                name = f"d{directory:03d}/f{file:02d}.txt"
                _write(local / name, _text(200 + 10 * file, name))

    return write


def _gzips(local: Path) -> None:
    for number in range(1000):
        content = gzip.compress(_text(27000, f"gz{number}"), 6, mtime=0)
        _write(local / "dir" / f"file{number:04d}.gz", content)


def _images(local: Path) -> None:
    for number in range(5000):
        content = random.Random(number).randbytes(100 * 1024)
        _write(local / "train" / f"img{number:05d}.jpg", content)


def _tails(local: Path) -> None:
    for number in range(600):
        content = random.Random(number).randbytes(700 * 1024)
        _write(local / "dir" / f"part{number:04d}.parquet", content)


def _everyday(local: Path) -> None:
    for number in range(30):
        _write(local / f"lib/package{number}/__init__.py", b"")
    for name in ("a", "b", "c"):
        _write(local / f"lib/package7/{name}.py", b"x = 1\n")
    _write(local / "lib/package7/__init__.py", b"from package7 import a, b, c\n")
    for number in range(200):
        _write(local / f"nested/d{number:03d}/file", b"%d\n" % number)
    for number in range(20):
        _write(local / f"work/src/{number:02d}.c", b"int x;\n")


LOCAL: Mapping[str, Callable[[Path], None]] = {
    "big": _big,
    "four": _four,
    "archive": _archive,
    "deep": _deep,
    "small": _small,
    "tree2000": _tree(200, 10),
    "tree10000": _tree(500, 20),
    "gzips": _gzips,
    "images": _images,
    "tails": _tails,
    "everyday": _everyday,
}
"""Those with a local copy."""


def _flat(count: int) -> Callable[[], Iterator[str]]:
    return lambda: (f"dir/file{number:07d}.dat" for number in range(count))


NAMES: Mapping[str, Callable[[], Iterator[str]]] = {
    "flat5000": _flat(5000),
    "flat100k": _flat(100_000),
    "flat1m": _flat(1_000_000),
    "keys100k": lambda: (f"d{n // 10:05d}/f{n % 10}.dat" for n in range(100_000)),
}
"""Those of names alone; every object holds `NAME_CONTENT`."""
NAME_CONTENT = b"a name"


def fault_size(number: int, version: int) -> int:
    """Bytes of a version of a fault object: some shrink and some grow when replaced."""
    return (1 if number % 2 else 4) * MIB + (version * (number % 3 - 1)) * 64 * 1024


def fault_content(number: int, version: int, offset: int, size: int) -> bytes:
    """Whole records of 16 bytes, each saying whose, of which version and where it is."""
    count = size // RECORD
    records = array("Q", bytes(count * RECORD))
    records[0::2] = array("Q", [0x5333 << 48 | number << 24 | version]) * count
    records[1::2] = array("Q", range(offset, offset + count * RECORD, RECORD))
    return records.tobytes()


def fault_key(number: int) -> str:
    """The key of a fault object."""
    return f"data/object{number:02d}.bin"


def _fill_faults(server: ModelledS3, local: Path) -> None:
    for version in range(FAULT_VERSIONS):
        for number in range(FAULT_OBJECTS):
            content = fault_content(number, version, 0, fault_size(number, version))
            _write(local / str(version) / fault_key(number), content)
    server.put_many("faults", fault_objects(local, 0))


def fault_objects(local: Path, version: int) -> dict[str, bytes | Path]:
    """All fault objects in one version, for `put_many`."""
    return {
        fault_key(number): local / str(version) / fault_key(number)
        for number in range(FAULT_OBJECTS)
    }


def fill(server: ModelledS3, name: str, directory: Path) -> Path:
    """Make the bucket `name` hold its dataset; returns the local copy."""
    local = directory / name
    server.create_bucket(name)
    if name in NAMES:
        server.put_many(name, ((key, NAME_CONTENT) for key in NAMES[name]()))
    elif name == "faults":
        _fill_faults(server, local)
    else:
        LOCAL[name](local)
        server.put_many(
            name,
            {
                str(path.relative_to(local)): path
                for path in sorted(local.rglob("*"))
                if path.is_file()
            },
        )
    return local

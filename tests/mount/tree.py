"""A tree of files with everything that is awkward: the originals that a mount must show."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import random
import sqlite3
import sys
from pathlib import Path

from PIL import Image

BLOCK = 1024 * 1024
SECTOR = 128 * 1024

SIZES = [
    size + delta
    for size in (SECTOR, BLOCK, 2 * BLOCK)
    for delta in (-1, 0, 1)
] + [0, 1, 511, 512, 513, 4095, 4096, 4097]  # fmt: skip

NAMES = [
    "with space.txt",
    " leading and trailing ",
    "new\nline.txt",
    "tab\there",
    "-rf",
    "--help",
    "quote'\"`$(x)",
    "back\\slash",
    "*?[a]",
    "%41%2F+",
    "déjà vu.txt",
    "日本語/ファイル.txt",
    "emoji 🦆/🦆.txt",
    "n" * 255,
    "deep/er/and/deeper/still/file",
]

LINES = "".join(f"line {number} of the log: status={number % 7}\n" for number in range(20_000))


def database(path: Path) -> bytes:
    """An SQLite database with 5,000 rows."""
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, word TEXT)")
        rows = ((number, f"word {number}") for number in range(5_000))
        connection.executemany("INSERT INTO t VALUES (?, ?)", rows)
    connection.close()
    data = path.read_bytes()
    path.unlink()
    return data


def image() -> bytes:
    """A PNG of 300 x 200 pixels."""
    picture = Image.new("RGB", (300, 200))
    picture.putdata([(x % 256, y, (x * y) % 256) for y in range(200) for x in range(300)])
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def originals(directory: Path) -> dict[str, bytes]:
    """Key -> bytes. `directory` is for scratch."""
    rng = random.Random(3)
    files = {f"sizes/{size}.bin": rng.randbytes(size) for size in SIZES}
    files |= {name: f"I am {name!r}\n".encode() for name in NAMES}
    files |= {
        "logs/plain.log": LINES.encode(),
        **{f"logs/day{day}.gz": gzip.compress(LINES.encode(), mtime=0) for day in range(3)},
        "big.bin": rng.randbytes(5 * BLOCK + 12_345),
        "data/table.json": json.dumps({"rows": list(range(1000)), "ä": "ö"}).encode(),
        "data/object.pickle": pickle.dumps({"a": [1, 2, 3], "b": b"x" * 100_000}),
        "data/picture.png": image(),
        "data/data.sqlite": database(directory / "database"),
        "code/shouter.py": b"def shout(text: str) -> str:\n    return text.upper()\n",
        "empty": b"",
    }
    files |= {f"many/{number:03}.txt": f"{number}\n".encode() * 50 for number in range(200)}
    assert len({sys.intern(name) for name in files}) == len(files)
    return files


def write(files: dict[str, bytes], directory: Path) -> Path:
    """The files below `directory`, as ordinary ones to compare with."""
    for name, data in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return directory

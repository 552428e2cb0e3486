"""What real tools must find in a mounted tree: run by test_tools, and against other servers.

Each check gets two directories that should hold the same, the mounted and the original one,
and a scratch directory.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

Check = Callable[[Path, Path, Path], None]
CHECKS: list[Check] = []


def check(function: Check) -> Check:
    """Have it run for every server."""
    CHECKS.append(function)
    return function


def output(command: str | list[str], cwd: Path) -> bytes:
    """What the command (a string is for bash) prints in that directory; it must succeed."""
    argv = ["bash", "-c", "set -o pipefail; " + command] if isinstance(command, str) else command
    environment = os.environ | {"LC_ALL": "C"}
    done = subprocess.run(argv, cwd=cwd, capture_output=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, b""), (command, done.stderr)
    return done.stdout


def alike(command: str | list[str]) -> Check:
    """A check that the command prints the same in both directories, and something."""

    def compare(mounted: Path, original: Path, _scratch: Path) -> None:
        expected = output(command, original)
        assert expected != b""
        assert output(command, mounted) == expected

    return compare


def python(code: str) -> list[str]:
    """A command that runs `code`."""
    return [sys.executable, "-I", "-B", "-c", code]


ALIKE: dict[str, str | list[str]] = {
    "find": "find . -print0 | sort -z",
    "find_by_size": r"find . -type f -size +100k -printf '%s %p\n' | sort",
    "find_empty_files": "find . -type f -empty",
    "ls": "ls -RA -b",
    "sizes": r"find . -type f -printf '%s %y %p\0' | sort -z",
    "grep": "grep -r 'status=3' . | sort",
    "grep_fixed_in_all": "grep -rFc I . | sort",
    "zcat": "zcat logs/*.gz | grep -c status=3",
    "zgrep": "zgrep -c 'line 1.* status=3' logs/day1.gz",
    "sha256sum": "find . -type f -print0 | sort -z | xargs -0 sha256sum",
    "cat_all": "find . -type f -print0 | sort -z | xargs -0 cat | sha256sum",
    "wc": "wc -l -c logs/*",
    "head": "head -n 3 logs/plain.log; head -c 100 big.bin | od -An -tx1",
    "tail_bytes": "tail -c 1000 big.bin | sha256sum; tail -c +2000000 big.bin | sha256sum",
    "tail_lines": "tail -n 5 logs/plain.log",
    "less": "less logs/plain.log | sha256sum",
    "less_pattern": "less -p 'line 777 ' logs/plain.log | sed -n 778,780p",
    "dd_seeks": "for at in 0 1 1023 5000 2 4999; do dd if=big.bin bs=1000 skip=$at count=3"
    " status=none; done | sha256sum",
    "dd_tail_block": "dd if=big.bin bs=1M skip=5 status=none | sha256sum",
    "dd_direct": "dd if=big.bin iflag=direct bs=1M status=none | sha256sum",
    "od_strides": "for at in 4194303 1048575 131071 5242880; do od -An -tx1 -j $at -N 3 big.bin;"
    " done",
    "cmp_self": "cmp big.bin big.bin && echo same",
    "file": "file data/* logs/*.gz empty",
    "sort": "sort -r logs/plain.log | sed -n 1,3p",
    "awk": "awk '{n += $2} END {print n}' logs/plain.log",
    "leading_dash": "cat ./-rf ./--help -- -rf",
    "wildcards": "cat many/*.txt | sha256sum; echo many/1*.txt",
    "newline": ["cat", "new\nline.txt"],
    "stat_name": ["stat", "-c", "%n %s %F", "déjà vu.txt", "with space.txt"],
    "tar": "tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=a=r -cf -"
    " big.bin logs many data code sizes -- empty | sha256sum",
    "cpio_order": "ls -U many | sort | tail -n 1",
    "sqlite3": "sqlite3 'file:data/data.sqlite?mode=ro' 'SELECT count(*), max(word) FROM t;"
    " PRAGMA integrity_check'",
    "sqlite3_immutable": "sqlite3 'file:data/data.sqlite?immutable=1' 'SELECT * FROM t"
    " WHERE id = 4321'",
    "python_pickle": python(
        "import pickle; print(hash(pickle.load(open('data/object.pickle', 'rb'))['b']) != 0,"
        " sorted(pickle.load(open('data/object.pickle', 'rb'))))"
    ),
    "python_json": python("import json; print(sum(json.load(open('data/table.json'))['rows']))"),
    "python_gzip": python("import gzip; print(len(gzip.open('logs/day2.gz').read()))"),
    "python_pil": python(
        "from PIL import Image; i = Image.open('data/picture.png');"
        " print(i.size, i.getpixel((299, 199)), hash(i.tobytes()) != 0)"
    ),
    "python_mmap": python(
        "import mmap, hashlib; f = open('big.bin', 'rb');"
        " m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ);"
        " print(hashlib.sha256(m[::-4097]).hexdigest(), m.find(m[3_000_000:3_000_020]))"
    ),
    "python_import": python(
        "import sys; sys.path.insert(0, 'code'); import shouter; print(shouter.shout('ok'))"
    ),
    "python_walk": python(
        "import os; print(sorted((d, sorted(s), sorted(f)) for d, s, f in os.walk('.')))"
    ),
}
for _name, _command in ALIKE.items():
    _check = alike(_command)
    _check.__name__ = _name
    check(_check)


@check
def sha256sum_check(mounted: Path, original: Path, scratch: Path) -> None:
    sums = scratch / "SHA256SUMS"
    sums.write_bytes(output("find . -type f -print0 | xargs -0 sha256sum", original))
    said = output(["sha256sum", "--quiet", "-c", str(sums)], mounted)
    assert said == b""


@check
def diff_says_they_are_the_same(mounted: Path, original: Path, scratch: Path) -> None:
    assert output(["diff", "-r", str(original), str(mounted)], scratch) == b""


@check
def cp_copies_all(mounted: Path, original: Path, scratch: Path) -> None:
    output(["cp", "-r", "--", str(mounted), str(scratch / "copy")], scratch)
    assert output(["diff", "-r", str(original), "copy"], scratch) == b""


@check
def rsync_copies_all_and_then_nothing(mounted: Path, original: Path, scratch: Path) -> None:
    rsync = ["rsync", "-rt", "--itemize-changes", f"{mounted}/", str(scratch / "synced")]
    assert output(rsync, scratch).count(b">f") > 200
    assert output(["diff", "-r", str(original), "synced"], scratch) == b""
    assert b">f" not in output(rsync, scratch)


@check
def tar_unpacks_to_the_same(mounted: Path, original: Path, scratch: Path) -> None:
    tar = f"tar -C {shlex.quote(str(mounted))} -cf - . | tar --no-same-owner -xf -"
    out = scratch / "unpacked"
    out.mkdir()
    output(tar, out)
    assert output(["diff", "-r", str(original), "unpacked"], scratch) == b""


@check
def du_shows_the_apparent_size(mounted: Path, original: Path, scratch: Path) -> None:
    def total(directory: Path) -> bytes:
        files = "find . -type f -print0 | du -c --apparent-size --bytes --files0-from=- | tail -n 1"
        return output(files, directory)

    assert total(mounted) == total(original)

"""Rows about many small files, read by the usual tools."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from pathlib import Path

from benchmarks.rows.bare import curl_all
from benchmarks.rows.row import Limit, Outcome, Row, Stage
from benchmarks.rows.shell import difference, run

FILES = 1000


def _grep(stage: Stage) -> Outcome:
    """Every file holds its name, so that the lines found say which files were read right."""
    seconds, out = run(["grep", "-r", "needle", "."], cwd=stage.root)
    files = [path for path in stage.local.rglob("*") if path.is_file()]
    odd = set(out.splitlines()) ^ {
        f"./{path.relative_to(stage.local)}:".encode() + path.read_bytes().splitlines()[-1]
        for path in files
    }
    return Outcome(seconds, wrong=f"{len(odd)} lines differ" if odd else "", items=len(files))


def _cp(stage: Stage) -> Outcome:
    seconds, _ = run(["cp", "-r", str(stage.root / "dir"), str(stage.scratch)])
    wrong = difference(stage.scratch / "dir", stage.local / "dir")
    return Outcome(seconds, wrong=wrong, items=FILES)


def _tar(stage: Stage) -> Outcome:
    archive = stage.scratch / "dir.tar"
    # Straight to /dev/null, tar reads no file.
    seconds, _ = run(f"tar -C {stage.root} -c dir | cat > {archive}")
    run(["tar", "-C", str(stage.scratch), "-xf", str(archive)])
    wrong = difference(stage.scratch / "dir", stage.local / "dir")
    return Outcome(seconds, wrong=wrong, items=FILES)


def _rsync(stage: Stage) -> Outcome:
    seconds, _ = run(["rsync", "-a", f"{stage.root}/dir/", f"{stage.scratch}/dir/"])
    wrong = difference(stage.scratch / "dir", stage.local / "dir")
    return Outcome(seconds, wrong=wrong, items=FILES)


def _md5sum(stage: Stage) -> Outcome:
    seconds, out = run("cd dir && md5sum *", cwd=stage.root)
    _, expected = run("cd dir && md5sum *", cwd=stage.local)
    return Outcome(seconds, wrong="" if out == expected else "the sums differ", items=FILES)


def _zcat(stage: Stage) -> Outcome:
    seconds, out = run("zcat dir/*.gz | md5sum", cwd=stage.root)
    _, expected = run("zcat dir/*.gz | md5sum", cwd=stage.local)
    return Outcome(seconds, wrong="" if out == expected else "the text differs", items=FILES)


SAMPLE = 64


def _read_images(root: Path, local: Path, names: list[str]) -> str:
    """Read files whole; the name of one that is not as it is locally, judged by samples."""
    wrong = ""
    for name in names:
        content = (root / name).read_bytes()
        with (local / name).open("rb") as file:
            for offset in range(0, len(content), 20000):
                file.seek(offset)
                if file.read(SAMPLE) != content[offset : offset + SAMPLE]:
                    wrong = name
            if os.fstat(file.fileno()).st_size != len(content):
                wrong = name
    return wrong


def _load(stage: Stage, processes: int, limit: int) -> Outcome:
    """As a data loader does: one listing, then workers that take their shuffled share."""
    start = time.perf_counter()
    names = sorted(os.listdir(stage.root / "train"))
    random.Random(3).shuffle(names)
    names = names[:limit]
    size = sum((stage.local / "train" / name).stat().st_size for name in names)
    shares = [
        (stage.root / "train", stage.local / "train", names[number::processes])
        for number in range(processes)
    ]
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        wrong = pool.starmap(_read_images, shares)
    seconds = time.perf_counter() - start
    told = next((name for name in wrong if name), "")
    return Outcome(size / seconds / 1e6, {"seconds": seconds}, told, len(names))


_BARE = (curl_all(64),)
_OF_GREP = "1.5 of grep"
_ONE_PROCESS = Limit("one process", lambda stage: _load(stage, 1, 500), mount_options=())

SMALL_FILES = (
    Row("grep-1000", "small", "grep -r, 1,000 files of 16 KiB", "s", "small", _grep, timeout=90,
        limits=_BARE, reach="0.9 s, 1,010 requests"),
    Row("grep-2000", "small", "grep -r, 2,000 tiny files in 200 directories", "s", "tree2000",
        _grep, timeout=90, limits=_BARE, reach="1.8 s, 2,015 requests"),
    Row("grep-10000", "small", "grep -r, 10,000 tiny files in 500 directories", "s", "tree10000",
        _grep, timeout=60, patience=2, runs=1, limits=_BARE, reach="9 s"),
    Row("cp", "tools", "cp -r of the 1,000", "s", "small", _cp, limits=_BARE, timeout=90,
        reach=_OF_GREP),
    Row("tar", "tools", "tar c of the 1,000", "s", "small", _tar, limits=_BARE, timeout=90,
        reach=_OF_GREP),
    Row("md5sum", "tools", "md5sum * of the 1,000", "s", "small", _md5sum, limits=_BARE,
        timeout=90, reach=_OF_GREP),
    Row("zcat-small", "tools", "zcat *.gz of 1,000 files", "s", "gzips", _zcat, limits=_BARE,
        timeout=90, reach=_OF_GREP),
    Row("rsync", "tools", "rsync -a of the 1,000", "s", "small", _rsync, limits=_BARE, timeout=90,
        reach=_OF_GREP),
    Row("torch", "torch", "8 processes, 5,000 files of 100 KiB, shuffled", "MB/s", "images",
        lambda stage: _load(stage, 8, 5000), True, timeout=90, runs=1, limits=(_ONE_PROCESS,),
        reach="6 x one process, 1 request a file"),
)  # fmt: skip

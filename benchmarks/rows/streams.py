"""Rows about bytes in bulk: streams, first bytes, random reads, the disk cache."""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.rows.bare import BareClient, curl_ranges, first_bytes, local_file
from benchmarks.rows.row import Limit, Outcome, Profile, Row, Stage
from benchmarks.rows.shell import run

BIG = "big.bin"
BLOCK = 4096
GIB = 1 << 30
DEEP = [f"d{number:02d}/file.bin" for number in range(20)]
FOUR = [f"stream{number}.bin" for number in range(4)]


def _compare(stage: Stage, *names: str) -> str:
    """Compare what the reader just got (most of it still in the page cache) with the local copy."""
    most = [f"--bytes={stage.compare}"] if stage.compare else []
    for name in names:
        done = subprocess.run(
            ["cmp", *most, str(stage.root / name), str(stage.local / name)],
            capture_output=True,
            check=False,
        )
        if done.returncode:
            return (done.stdout + done.stderr).decode(errors="replace").strip()
    return ""


def _dd(path: Path) -> float:
    return run(["dd", f"if={path}", "of=/dev/null", "bs=128K", "status=none"])[0]


def _sequential(stage: Stage) -> Outcome:
    seconds = _dd(stage.root / BIG)
    return Outcome((stage.local / BIG).stat().st_size / seconds / 1e6)


def _read_and_settle(stage: Stage) -> None:
    """Read it once, and wait until what is written to the disk cache is written."""
    _dd(stage.root / BIG)
    cache = stage.root.parent / "cache"
    before, deadline = -1, time.monotonic() + 30
    while time.monotonic() < deadline:
        size = int(run(f"du -s {cache} | cut -f1")[1])
        if size == before:
            break
        before = size
        time.sleep(0.5)
    os.sync()


def _four_at_once(stage: Stage) -> Outcome:
    start = time.perf_counter()
    with ThreadPoolExecutor(len(FOUR)) as pool:
        seconds = list(pool.map(lambda name: _dd(stage.root / name), FOUR))
    elapsed = time.perf_counter() - start
    size = sum((stage.local / name).stat().st_size for name in FOUR)
    return Outcome(size / elapsed / 1e6, {"slowest/fastest": max(seconds) / min(seconds)})


def _first_byte(stage: Stage) -> Outcome:
    seconds: list[float] = []
    wrong = ""
    for name in DEEP:
        start = time.perf_counter()
        with (stage.root / name).open("rb", buffering=0) as file:
            head = file.read(BLOCK)
        seconds.append(time.perf_counter() - start)
        with (stage.local / name).open("rb") as file:
            wrong = wrong or (name if file.read(BLOCK) != head else "")
    details = {"first ms": seconds[0] * 1000, "worst ms": max(seconds) * 1000}
    return Outcome(statistics.median(seconds) * 1000, details, wrong, len(DEEP))


def _random_offsets(stage: Stage, count: int, seed: int) -> list[int]:
    blocks = (stage.local / BIG).stat().st_size // BLOCK
    return [number * BLOCK for number in random.Random(seed).sample(range(blocks), count)]


def _random_reads(stage: Stage) -> Outcome:
    """100 reads, one after the other: the median in ms."""
    seconds: list[float] = []
    wrong = ""
    descriptor, local = (os.open(place / BIG, os.O_RDONLY) for place in (stage.root, stage.local))
    for offset in _random_offsets(stage, 100, 5):
        start = time.perf_counter()
        block = os.pread(descriptor, BLOCK, offset)
        seconds.append(time.perf_counter() - start)
        if block != os.pread(local, BLOCK, offset):
            wrong = f"4 KiB at {offset}"
    os.close(descriptor)
    os.close(local)
    details = {"worst ms": max(seconds) * 1000}
    return Outcome(statistics.median(seconds) * 1000, details, wrong, len(seconds))


READERS, READ_SECONDS = 32, 4.0


def _random_readers(stage: Stage) -> Outcome:
    """32 readers for 4 s: reads/s."""
    descriptor, local = (os.open(place / BIG, os.O_RDONLY) for place in (stage.root, stage.local))
    deadline = time.perf_counter() + READ_SECONDS

    def read(number: int) -> tuple[int, str]:
        wrong, done = "", 0
        for offset in _random_offsets(stage, 20000, 1000 + number):
            block = os.pread(descriptor, BLOCK, offset)
            if time.perf_counter() > deadline:
                break
            done += 1
            if block != os.pread(local, BLOCK, offset):
                wrong = f"4 KiB at {offset}"
        return done, wrong

    with ThreadPoolExecutor(READERS) as pool:
        results = list(pool.map(read, range(READERS)))
    os.close(descriptor)
    os.close(local)
    total = sum(done for done, _ in results)
    wrong = next((text for _, text in results if text), "")
    return Outcome(total / READ_SECONDS, {}, wrong, total)


def _bare_readers(stage: Stage) -> Outcome:
    deadline = time.perf_counter() + READ_SECONDS

    def read(number: int) -> int:
        client, done = BareClient(stage), 0
        for offset in _random_offsets(stage, 20000, 1000 + number):
            client.get(BIG, offset, BLOCK)
            if time.perf_counter() > deadline:
                break
            done += 1
        return done

    with ThreadPoolExecutor(READERS) as pool:
        return Outcome(sum(pool.map(read, range(READERS))) / READ_SECONDS)


def _bare_random(stage: Stage) -> Outcome:
    client = BareClient(stage)
    seconds: list[float] = []
    for offset in _random_offsets(stage, 40, 5):
        start = time.perf_counter()
        client.get(BIG, offset, BLOCK)
        seconds.append(time.perf_counter() - start)
    return Outcome(statistics.median(seconds) * 1000)


def _tails(stage: Stage) -> Outcome:
    """The end of every file, as of archives and columns, shuffled over 32 readers: reads/s."""
    names = sorted(os.listdir(stage.root / "dir"))
    random.Random(7).shuffle(names)

    def read(name: str) -> bool:
        with (stage.root / "dir" / name).open("rb", buffering=0) as file:
            file.seek(-BLOCK, os.SEEK_END)
            end = file.read(BLOCK)
        return (stage.local / "dir" / name).read_bytes()[-BLOCK:] == end

    start = time.perf_counter()
    with ThreadPoolExecutor(READERS) as pool:
        right = list(pool.map(read, names))
    seconds = time.perf_counter() - start
    wrong = next((name for name, is_right in zip(names, right, strict=True) if not is_right), "")
    return Outcome(len(names) / seconds, {}, wrong, len(names))


def _bare_tails(stage: Stage) -> Outcome:
    sizes = {path.name: path.stat().st_size for path in (stage.local / "dir").iterdir()}
    names = sorted(sizes)
    start = time.perf_counter()

    def read(number: int) -> None:
        client = BareClient(stage)
        for name in names[number::READERS]:
            client.get(f"dir/{name}", sizes[name] - BLOCK, BLOCK)

    with ThreadPoolExecutor(READERS) as pool:
        list(pool.map(read, range(READERS)))
    return Outcome(len(names) / (time.perf_counter() - start))


def _zcat(stage: Stage) -> Outcome:
    seconds, _ = run(["bash", "-c", f"zcat {stage.root / 'big.gz'} > /dev/null"])
    return Outcome(seconds)


def _usable(stage: Stage) -> Outcome:
    return Outcome(stage.usable_after)


def _checked_dd(stage: Stage) -> str:
    return _compare(stage, BIG)


_WITHOUT_CACHE = Limit("without the cache", _sequential, mount_options=("--cache-dir", "none"))
# One connection takes 12 s for 1 GiB.
_PATIENCE = 3.0

STREAMS = (
    Row("seq", "seq", "1 GiB, dd bs=128K, cold", "MB/s", "big", _sequential, True,
        timeout=90, patience=_PATIENCE, verify=_checked_dd,
        limits=(curl_ranges(16, BIG), curl_ranges(32, BIG)),
        reach="0.75 of curl x16, 1.3 x the best peer"),
    Row("seq-raw", "seq", "1 GiB cold, without latency or rate", "MB/s", "big", _sequential, True,
        profile=Profile.RAW, timeout=60, patience=_PATIENCE, verify=_checked_dd,
        limits=(curl_ranges(1, BIG), curl_ranges(16, BIG)), reach="0.45 of curl x1"),
    Row("seq-tls", "seq", "1 GiB cold, over TLS", "MB/s", "big", _sequential, True,
        profile=Profile.TLS, timeout=90, patience=_PATIENCE, verify=_checked_dd,
        limits=(curl_ranges(16, BIG),), reach="0.7 of curl x16"),
    Row("seq-64m", "seq", "1 GiB cold, --memory-limit 64M", "MB/s", "big", _sequential, True,
        timeout=90, verify=_checked_dd, mount_options=("--memory-limit", "64M"), with_peers=False,
        limits=(curl_ranges(16, BIG),), reach="streams"),
    Row("seq-filling", "cache", "1 GiB cold, the disk cache filling", "MB/s", "big", _sequential,
        True, disk_cache=True, timeout=90, patience=_PATIENCE, verify=_checked_dd,
        limits=(_WITHOUT_CACHE,), reach="as without"),
    Row("disk-warm", "cache", "again from the disk cache, page cache dropped", "MB/s", "big",
        _sequential, True, disk_cache=True, prepare=_read_and_settle, drop_page_cache=True,
        timeout=60, patience=_PATIENCE, verify=_checked_dd, limits=(local_file(_sequential),),
        reach="0.8 of the local disk"),
    Row("page-warm", "cache", "again from the page cache", "MB/s", "big", _sequential, True,
        prepare=_read_and_settle, timeout=60, patience=_PATIENCE, verify=_checked_dd,
        limits=(local_file(_sequential),), reach="0.95 of a local file, 0 requests"),
    Row("four", "seq", "four files of 256 MiB at once, cold", "MB/s", "four", _four_at_once, True,
        timeout=90, patience=_PATIENCE, verify=lambda stage: _compare(stage, *FOUR),
        limits=(curl_ranges(16, *FOUR),), reach="no slower than one"),
    Row("first-byte", "first-byte", "first 4 KiB of 20 files in unlisted directories, each", "ms",
        "deep", _first_byte, timeout=60, limits=(first_bytes(DEEP),),
        reach="29 ms, 24 requests"),
    Row("random", "random", "4 KiB random reads in 1 GiB, each", "ms", "big", _random_reads,
        timeout=60, patience=2, most_fetched=GIB // 4, limits=(Limit("GET", _bare_random),),
        reach="28 ms, 128 KiB a read"),
    Row("random-32", "random", "the same, 32 readers", "reads/s", "big", _random_readers, True,
        timeout=60, patience=2, most_fetched=GIB * 9 // 10,
        limits=(Limit("GET x32", _bare_readers),), reach="1,000"),
    Row("tails", "random", "the last 4 KiB of 600 files of 700 KiB, 32 readers", "reads/s", "tails",
        _tails, True, timeout=60, limits=(Limit("GET x32", _bare_tails),)),
    Row("zcat", "zcat", "zcat of a large .gz, cold", "s", "archive", _zcat, timeout=90,
        patience=_PATIENCE, verify=lambda stage: _compare(stage, "big.gz"),
        limits=(local_file(_zcat),), reach="1.1 of the local disk"),
    Row("mount", "mount", "mount to usable", "s", "deep", _usable, counts_mounting=True,
        reach="0.5 s"),
)  # fmt: skip

"""What one request costs, by boto3 and by the lean path: CPU, time, throughput.

    python -m benchmarks.micro_lean

Against the modelled S3 without its latency and rate, so that the client is what is
measured. CPU is of this process, all its threads; the figures are medians of five.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import trio

from benchmarks.modelled_s3 import ModelledS3
from s3mount.config import KIB, MIB, Config
from s3mount.metrics import Metrics
from s3mount.s3.bucket import Bucket
from s3mount.s3.connect import build

SMALL = 16 * KIB
BIG = 256 * MIB
RANGE = 8 * MIB
ROUNDS = 5


async def measure(
    name: str, unit: Callable[[float, float], str], work: Callable[[], Awaitable[None]]
) -> None:
    """Run `work` a few times; `unit` words the medians of wall and CPU seconds."""
    await work()
    walls, cpus = [], []
    for _ in range(ROUNDS):
        wall, cpu = time.perf_counter(), time.process_time()
        await work()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    print(f"  {name:<34} {unit(statistics.median(walls), statistics.median(cpus))}", flush=True)


def per_call(calls: int) -> Callable[[float, float], str]:
    """Words for a number of calls."""
    return lambda wall, cpu: (
        f"{wall / calls * 1e3:6.3f} ms each, CPU {cpu / calls * 1e3:6.3f} ms each"
    )


def per_gigabyte(size: int) -> Callable[[float, float], str]:
    """Words for a number of bytes."""
    return lambda wall, cpu: f"{size / wall / 1e6:6.0f} MB/s, CPU {cpu / size * 1e9:5.2f} s/GB"


async def small_gets(bucket: Bucket, calls: int, at_once: int) -> None:
    """`calls` GETs of 16 KiB by `at_once` tasks."""

    async def some(task: int) -> None:
        into = [memoryview(bytearray(SMALL))]
        for index in range(task, calls, at_once):
            await bucket.get_range(f"small/{index % 200:04}", 0, into, etag=None)

    async with trio.open_nursery() as nursery:
        for task in range(at_once):
            nursery.start_soon(some, task)


async def stream(bucket: Bucket, at_once: int) -> None:
    """The big object, in ranges of 8 MiB by `at_once` tasks, in buffers of 1 MiB."""
    starts = iter(range(0, BIG, RANGE))

    async def some(into: list[memoryview]) -> None:
        for start in starts:
            await bucket.get_range("big", start, into, etag=None, on_filled=lambda _: None)

    async with trio.open_nursery() as nursery:
        for index in range(at_once):
            nursery.start_soon(some, BUFFERS[index])


BUFFERS = [[memoryview(bytearray(b"x" * MIB)) for _ in range(RANGE // MIB)] for _ in range(16)]


async def list_all(bucket: Bucket, pages: int) -> None:
    """The same page of 1,000 keys, `pages` times."""
    for _ in range(pages):
        assert len((await bucket.list_page("listed/")).objects) == 1000


async def main_of(endpoint: str, ca_path: Path | None, lean: bool) -> None:
    """All rows of one way."""
    config = Config("bucket", "bucket", "", Path("/"), endpoint_url=endpoint, ca_bundle=ca_path)
    bucket = await build(config, Metrics(), "us-east-1", lean=lean)
    await measure(
        "GET 16 KiB, one after another", per_call(300), lambda: small_gets(bucket, 300, 1)
    )
    await measure("GET 16 KiB, 16 at once", per_call(1000), lambda: small_gets(bucket, 1000, 16))
    await measure("LIST of 1,000 keys", per_call(10), lambda: list_all(bucket, 10))
    for at_once in (1, 4, 16):
        await measure(
            f"GET 8 MiB ranges, {at_once} at once",
            per_gigabyte(BIG),
            partial(stream, bucket, at_once),
        )
    await bucket.aclose()


def main() -> None:
    """Measure both ways, plain and over TLS."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["lean", "boto3"])
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--profile", action="store_true", help="a rate and a latency as S3's")
    arguments = parser.parse_args()
    os.environ |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    with ModelledS3(tls=arguments.tls) as server:
        if not arguments.profile:
            server.set_model(ttfb=0.0, rate=0)
        server.put("bucket", "big", os.urandom(BIG))
        server.put_many("bucket", {f"small/{n:04}": os.urandom(SMALL) for n in range(200)})
        server.put_many("bucket", {f"listed/{n:04} of it": b"" for n in range(1000)})
        endpoint = server.tls_endpoint_url if arguments.tls else server.endpoint_url
        ca_path = server.ca_path if arguments.tls else None
        for name in ("lean", "boto3"):
            if arguments.only in (None, name):
                print(f"{name}, {endpoint.partition(':')[0]}:")
                trio.run(main_of, endpoint, ca_path, name == "lean")


if __name__ == "__main__":
    main()

"""The limits: the same bytes or names, fetched by a client that does nothing else."""

from __future__ import annotations

import http.client
import re
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote, urlencode, urlsplit

from benchmarks.rows.row import Limit, Outcome, Stage, Work
from benchmarks.rows.shell import run

PART = 8 << 20


def _curl(stage: Stage, connections: int, requests: list[tuple[str, str | None]]) -> float:
    """Seconds for these (key, range) with curl -Z."""
    lines: list[str] = []
    for key, byte_range in requests:
        lines.append(f'url = "{stage.endpoint_url}/{stage.bucket}/{quote(key)}"')
        lines.append('output = "/dev/null"')
        if byte_range:
            lines.append(f'range = "{byte_range}"')
    config = stage.scratch / "curl.config"
    config.write_text("\n".join(lines) + "\n")
    ca = ["--cacert", str(stage.ca_path)] if stage.ca_path else []
    seconds, _ = run(
        [
            *("curl", "--silent", "--fail", "--parallel", "--parallel-immediate"),
            *("--parallel-max", str(connections), *ca, "--config", str(config)),
        ]
    )
    return seconds


def curl_ranges(connections: int, *keys: str) -> Limit:
    """Parallel ranged GETs of 8 MiB of these keys; MB/s. One connection: one GET."""

    def work(stage: Stage) -> Outcome:
        sizes = {key: (stage.local / key).stat().st_size for key in keys}
        part = PART if connections > 1 else max(sizes.values())
        requests: list[tuple[str, str | None]] = [
            (key, f"{first}-{min(first + part, size) - 1}")
            for key, size in sizes.items()
            for first in range(0, size, part)
        ]
        return Outcome(sum(sizes.values()) / _curl(stage, connections, requests) / 1e6)

    return Limit(f"curl x{connections}", work)


def curl_all(connections: int) -> Limit:
    """Every object of the dataset whole, so many at once; seconds."""

    def work(stage: Stage) -> Outcome:
        files = [path for path in sorted(stage.local.rglob("*")) if path.is_file()]
        requests: list[tuple[str, str | None]] = [
            (str(path.relative_to(stage.local)), None) for path in files
        ]
        return Outcome(_curl(stage, connections, requests))

    return Limit(f"curl x{connections}", work)


def local_file(work: Work) -> Limit:
    """The row's own work, on the local copy."""
    return Limit("local disk", work, is_local=True)


class BareClient:
    """One unsigned connection to the server."""

    def __init__(self, stage: Stage) -> None:
        self.connection = http.client.HTTPConnection(urlsplit(stage.endpoint_url).netloc)
        self.bucket = stage.bucket

    def get(self, key: str, first: int, size: int) -> bytes:
        """A ranged GET."""
        byte_range = {"Range": f"bytes={first}-{first + size - 1}"}
        self.connection.request("GET", f"/{self.bucket}/{quote(key)}", headers=byte_range)
        return self.connection.getresponse().read()

    def list_page(self, prefix: str, after: str) -> str | None:
        """One page without delimiter: its last key, if more follow."""
        query = urlencode({"list-type": 2, "prefix": prefix, "start-after": after})
        self.connection.request("GET", f"/{self.bucket}?{query}")
        page = self.connection.getresponse().read()
        more = b"<IsTruncated>true" in page
        keys = re.findall(rb"<Key>([^<]*)</Key>", page)
        return keys[-1].decode() if more else None


def first_bytes(keys: list[str]) -> Limit:
    """A GET of 4 KiB for each key, one after the other; the median in ms."""

    def work(stage: Stage) -> Outcome:
        client = BareClient(stage)
        seconds: list[float] = []
        for key in keys:
            start = time.perf_counter()
            client.get(key, 0, 4096)
            seconds.append(time.perf_counter() - start)
        return Outcome(statistics.median(seconds) * 1000)

    return Limit("GET", work)


def flat_listing(splits: list[str]) -> Limit:
    """All keys by flat listings, one for each stretch that begins after one of `splits`."""

    def work(stage: Stage) -> Outcome:
        ends = [*splits[1:], None]

        def walk(after: str, end: str | None) -> None:
            client, last = BareClient(stage), after
            while (more := client.list_page("", last)) and (end is None or more < end):
                last = more

        start = time.perf_counter()
        with ThreadPoolExecutor(len(splits)) as pool:
            list(pool.map(walk, splits, ends))
        return Outcome(time.perf_counter() - start)

    return Limit(f"LIST x{len(splits)}", work)

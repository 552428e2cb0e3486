"""Names stay within --memory-limit, by real tools through the real kernel."""

from __future__ import annotations

import subprocess
from pathlib import Path

from benchmarks.modelled_s3.server import ModelledS3
from tests.mounting import Mounts
from tests.servers import Server

BUCKET = "names"
MIB = 1024 * 1024
LIMIT = 72
# Some 30 MiB of names, where they may have 4.
DIRECTORIES, FILES = 200, 500
HOUR = ("--metadata-ttl", "1h", "--negative-ttl", "1h")


def test_a_walk_through_more_names_than_fit(tmp_path: Path) -> None:
    names = [f"d{d:03}/file-number-{f:05}" for d in range(DIRECTORIES) for f in range(FILES)]
    with ModelledS3(ttfb=0, rate=0, buckets=(BUCKET,)) as s3:
        s3.put_many(BUCKET, dict.fromkeys(names, b""))
        with Mounts(tmp_path, Server(s3.endpoint_url)) as mount:
            mounted = mount(BUCKET, *HOUR, "--memory-limit", f"{LIMIT}M", covered=False)
            for _ in range(2):
                find = ["find", ".", "-type", "f", "-printf", "%P\\n"]
                done = subprocess.run(
                    find, cwd=mounted.path, capture_output=True, text=True, check=True
                )
                assert sorted(done.stdout.split()) == names
            assert mounted.memory() < 1.15 * LIMIT * MIB

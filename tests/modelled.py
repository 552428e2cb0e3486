"""The modelled S3 in moto's place, where thousands of names are listed or thousands of files read.

It answers a page of a thousand names in 3 ms, and moto in 300.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from benchmarks.modelled_s3.server import ModelledS3
from tests.servers import Server


class Modelled(Server):
    """As a `Server`, as far as mounts and counts go."""

    def __init__(self, s3: ModelledS3, bucket: str) -> None:
        super().__init__(s3.endpoint_url)
        self.bucket = bucket
        self._s3 = s3

    def counts(self) -> Counter[str]:
        """Requests by kind since the last `reset`."""
        return Counter({kind: n for kind, n in self._s3.counts().requests.items() if n})

    def reset(self) -> None:
        """Forget the requests so far."""
        self._s3.reset_counts()


@contextmanager
def modelled(
    objects: Mapping[str, bytes], *, latency: float = 0, bucket: str = "modelled"
) -> Iterator[Modelled]:
    """A server with one bucket, that answers after so many seconds."""
    with ModelledS3(ttfb=latency, rate=0, buckets=(bucket,)) as s3:
        s3.put_many(bucket, objects)
        yield Modelled(s3, bucket)

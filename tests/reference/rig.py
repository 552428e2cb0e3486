"""A whole filesystem over a bucket in memory, and a kernel that keeps its own books."""

from __future__ import annotations

import math

import trio

from s3mount.files_ahead import FilesAhead
from s3mount.filesystem import Filesystem, Look
from s3mount.metrics import Metrics
from s3mount.namespace.tree import Tree
from s3mount.reading.blocks import Geometry
from s3mount.reading.fetcher import Fetcher
from s3mount.reading.memory import Memory
from s3mount.reading.readahead import Readahead
from s3mount.s3.bucket import Bucket

BLOCK = 4096
SECTOR = 1024


def filesystem_of(
    bucket: Bucket,
    nursery: trio.Nursery,
    *,
    prefix: str = "",
    metadata_ttl: float = 60.0,
    negative_ttl: float = 5.0,
    blocks: int = 6,
    files_ahead: int = 8,
    names: float = math.inf,
) -> tuple[Filesystem, Tree]:
    """All the rooms below the kernel's, with blocks of one page; `names`: bytes for names."""
    tree = Tree(bucket, prefix, nursery, metadata_ttl=metadata_ttl, negative_ttl=negative_ttl)
    tree.forgetting.limit(names, lambda _size: None)
    memory = Memory(BLOCK, blocks * BLOCK)
    fetcher = Fetcher(
        bucket,
        cache=None,
        memory=memory,
        geometry=Geometry(BLOCK, SECTOR),
        nursery=nursery,
        scope="test",
        connections=8,
    )
    readahead = Readahead(memory.limit, BLOCK)
    look = Look(uid=1, gid=2, file_mode=0o644, dir_mode=0o755, directory_mtime_ns=10**18)
    ahead = FilesAhead(tree, fetcher, readahead, Metrics(), files_ahead)
    return Filesystem(tree, fetcher, readahead, look, ahead), tree

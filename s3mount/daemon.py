"""The composition root: builds every room, serves until the mount ends, tears down.

The only module that constructs. The order of the start: whatever can fail fails before
the mount exists, and `ready` is called after the mount has answered.
"""

from __future__ import annotations

import ctypes
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from functools import cache
from pathlib import Path

import trio

from s3mount.cache.block_cache import BlockCache
from s3mount.cache.name_store import NameStore
from s3mount.config import MIB, Config
from s3mount.errors import S3MountError, ServerError, Throttled
from s3mount.files_ahead import FilesAhead
from s3mount.filesystem import Filesystem, Look
from s3mount.kernel import mountpoint
from s3mount.kernel.crawlers import Crawlers
from s3mount.kernel.mountpoint import Mounted
from s3mount.kernel.operations import Operations
from s3mount.kernel.session import Session
from s3mount.kernel.tuning import tune
from s3mount.metrics import Metrics
from s3mount.namespace.remembered import Remembered
from s3mount.namespace.tree import Tree
from s3mount.reading.blocks import SECTOR_SIZE, Geometry
from s3mount.reading.fetcher import Fetcher
from s3mount.reading.memory import Memory
from s3mount.reading.readahead import Readahead
from s3mount.s3.bucket import Bucket
from s3mount.s3.connect import connect

log = logging.getLogger(__name__)

# Whoever types the command waits for the first request: an endpoint that refuses it thrice is
# told of now, not after the eight seconds that all of --retries take.
MOUNT_RETRIES = 2
# Seconds for which a thread that computes may keep others from running. Who waits for Python's lock
# wakes as often: with 0.2 ms a stream took 1.23 s of CPU per GiB, with Python's 5 ms 1.15, so 1.02.
SWITCH_INTERVAL = 0.001
# Of glibc's mallopt(3): how many heaps there may be. By default nearly each of many threads gets
# one, and gives nothing of it back: some 5 MiB with a stream.
M_ARENA_MAX = -8
# What the process grows by at work, beside buffers: 64 threads with their stacks and heaps, and
# requests of the kernel under way. Measured as 10 MiB with a stream.
GROWTH = 10 * MIB
# Of --cache-size, what names may take with --persist-metadata: at 10 GiB some 15 million.
NAMES_SHARE = 0.1
# The least that buffers get, however low --memory-limit: a block or two for a few readers.
LEAST_BUFFERS = 8 * MIB
# Bytes that may wait for the disk cache's writer.
WRITE_QUEUE = 32 * MIB
# Of what buffers and names share, the most that names may take: some 100,000 files by default.
NAMES_OF_MEMORY = 0.5
LEAST_NAMES = 4 * MIB


def serve(
    config: Config, ready: Callable[[], None], stopping: Callable[[], None] = lambda: None
) -> None:
    """Mount, call `ready` once the mount answers, and serve until it ends.

    Ends by itself when the mountpoint is unmounted, and on SIGTERM and SIGINT; `stopping`
    is called when the end begins.

    Raises:
        S3MountError: the mount could not be made; nothing is left behind.
    """
    mountpoint.prepare(config.mountpoint)
    sys.setswitchinterval(SWITCH_INTERVAL)
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
    try:
        # cache: whoever notices the end first tells of it, once
        trio.run(_serve, config, ready, cache(stopping))
    except BaseExceptionGroup as group:
        raise _first(group) from group


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that a nursery's group is about: one of ours, if there is any."""
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves.append(_first(error) if isinstance(error, BaseExceptionGroup) else error)
    return next((error for error in leaves if isinstance(error, S3MountError)), leaves[0])


async def _serve(config: Config, ready: Callable[[], None], stopping: Callable[[], None]) -> None:
    metrics = Metrics()
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        stack.callback(nursery.cancel_scope.cancel)
        bucket, identity = await connect(config, metrics, nursery)
        stack.push_async_callback(_shielded, bucket.aclose)
        remembered = await _remembered(config, identity, stack)
        tree = Tree(
            bucket,
            config.prefix,
            nursery,
            metadata_ttl=config.metadata_ttl,
            negative_ttl=config.negative_ttl,
            remembered=remembered,
        )
        with bucket.briefly(MOUNT_RETRIES):
            try:
                await tree.learn_root()
            except (Throttled, ServerError) as error:
                error.cure = "try again later"  # and not "wait": this command is giving up
                raise
        block_cache = None
        if config.cache_dir is not None:
            block_cache = await BlockCache.open(
                config.cache_dir,
                size_limit=config.cache_size - _names_size(config),
                # What waits for the writer keeps its buffers from readers.
                queue_limit=min(WRITE_QUEUE, _buffers(config, tree) // 2),
                metrics=metrics,
            )
            stack.push_async_callback(_shielded, block_cache.aclose)
        filesystem = _filesystem(
            config, bucket, block_cache, tree, nursery=nursery, metrics=metrics
        )
        session = Session(config.mountpoint)
        operations = Operations(filesystem, Crawlers(config.keep_out), config.deadline)
        mounted = session.open(operations, source=config.source, options=_mount_options(config))
        stack.callback(session.close)
        stack.callback(stopping)
        nursery.start_soon(_end_on_signal, session, stopping, config.foreground)
        nursery.start_soon(_tell_when_ready, config, mounted, ready)
        if remembered is not None:
            nursery.start_soon(remembered.keep)
        await session.serve(operations)
        log.info("unmounted %s; %s", config.mountpoint, metrics.snapshot())


async def _remembered(config: Config, identity: str, stack: AsyncExitStack) -> Remembered | None:
    """What the last mount of the same knew; it is saved, and closed, as the stack unwinds."""
    ttl = max(config.metadata_ttl, config.negative_ttl)
    if not config.persist_metadata or config.cache_dir is None or ttl == 0:
        return None
    # Who may see other names must not be shown these.
    source = (sys.byteorder, identity, config.expected_bucket_owner, config.requester_pays)
    store = await NameStore.open(
        config.cache_dir,
        repr((*source, config.bucket, config.prefix)),
        size_limit=_names_size(config),
    )
    stack.push_async_callback(_shielded, store.aclose)
    remembered = Remembered(store, ttl=ttl)
    stack.push_async_callback(_shielded, remembered.save)
    return remembered


def _names_size(config: Config) -> int:
    """What names may take of `--cache-size`."""
    return int(config.cache_size * NAMES_SHARE) if config.persist_metadata else 0


def _filesystem(
    config: Config,
    bucket: Bucket,
    block_cache: BlockCache | None,
    tree: Tree,
    *,
    nursery: trio.Nursery,
    metrics: Metrics,
) -> Filesystem:
    geometry = Geometry(config.block_size, min(SECTOR_SIZE, config.block_size))
    budget = _budget(config, tree)
    memory = Memory(config.block_size, _buffers(config, tree))
    tree.forgetting.limit(
        max(LEAST_NAMES, budget * NAMES_OF_MEMORY),
        lambda size: memory.resize(max(LEAST_BUFFERS, budget - size)),
    )
    fetcher = Fetcher(
        bucket,
        cache=block_cache,
        memory=memory,
        geometry=geometry,
        nursery=nursery,
        scope=f"{config.endpoint_url or 'aws'}/{config.bucket}",
        connections=config.max_connections,
    )
    readahead = Readahead(memory.limit, config.block_size, beside_cache=block_cache is not None)
    ahead = FilesAhead(tree, fetcher, readahead, metrics, config.readahead_files)
    return Filesystem(tree, fetcher, readahead, _look(config), ahead)


def _look(config: Config) -> Look:
    umask = config.umask if config.umask is not None else 0o022
    return Look(
        uid=config.uid if config.uid is not None else os.getuid(),
        gid=config.gid if config.gid is not None else os.getgid(),
        file_mode=config.file_mode if config.file_mode is not None else 0o666 & ~umask,
        dir_mode=config.dir_mode if config.dir_mode is not None else 0o777 & ~umask,
        directory_mtime_ns=time.time_ns(),
    )


def _mount_options(config: Config) -> list[str]:
    options = list(config.mount_options)
    if config.allow_other:
        options.append("allow_other")
    if config.allow_root:
        options.append("allow_root")
    return options


def _buffers(config: Config, tree: Tree) -> int:
    """Bytes that buffers may take while there are no names."""
    return max(LEAST_BUFFERS, _budget(config, tree))


def _budget(config: Config, tree: Tree) -> int:
    """What `--memory-limit` leaves for buffers and names, beside what the process will hold."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    process = pages * resource.getpagesize() - tree.forgetting.size
    return config.memory_limit - GROWTH - process


async def _tell_when_ready(config: Config, mounted: Mounted, ready: Callable[[], None]) -> None:
    """Call `ready` once the mount has answered a real stat(2)."""
    # In a thread: this process itself answers it.
    await trio.to_thread.run_sync(os.stat, config.mountpoint)
    # Not before: the kernel sets what is tuned to its defaults as it takes the answer to INIT.
    tune(mounted)
    log.info("mounted %s at %s", config.source, config.mountpoint)
    ready()


async def _end_on_signal(session: Session, stopping: Callable[[], None], foreground: bool) -> None:
    """End the mount on a signal. In the background SIGHUP is no reason to: logs reopen alone."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async for number in signals:
            if number == signal.SIGHUP and not foreground:
                continue
            log.info("%s: unmounting %s", signal.Signals(number).name, session.mountpoint)
            stopping()
            await session.end()


async def _shielded(close: Callable[[], Awaitable[None]]) -> None:
    """Close even while everything is being cancelled."""
    with trio.CancelScope(shield=True):
        await close()

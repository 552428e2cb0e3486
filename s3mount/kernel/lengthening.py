"""Tells the kernel that a file is longer than it takes it for, while it reads that file.

The kernel ends a read(2) at the size it knows (`i_size`), however much the answers to its READs
bring. It looks at that size again after each answer, so it must know before it is answered.
Invalid attributes do not help: they are asked for at the next read. What does is a byte that is
stored behind the end, the last one of the file: `fuse_notify_store` writes the size, and then
locks the page of that byte.

That page may be locked already, by the very READ that waits for us (a file that grew by a line).
Then the store waits in its turn, with the size written: its thread is seen to sleep, in a
state which nothing else on its way there has for more than microseconds. It ends when the
READ was answered, and puts the byte where the same byte is by then.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pyfuse3
import trio
from pyfuse3 import InodeT

from s3mount.errors import Stale

log = logging.getLogger(__name__)

# Seconds: it takes less than a millisecond, and a thread may have to wait for a CPU.
PATIENCE = 2.0
LOOK_EVERY = 0.001


async def lengthen(ino: int, size: int, last: bytes) -> None:
    """Have the kernel know that the file has `size` bytes, of which the last one is `last`.

    Raises `Stale` when it cannot be told.
    """
    failures: list[OSError] = []

    def store() -> None:
        try:
            pyfuse3.notify_store(InodeT(ino), size - 1, last)
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=store, name="s3mount-lengthen", daemon=True)
    thread.start()
    with trio.move_on_after(PATIENCE):
        while thread.is_alive() and not _is_held(thread):  # noqa: ASYNC110  # held, it sets no event
            await trio.sleep(LOOK_EVERY)
        if not failures:
            return
        log.debug("the size of inode %d cannot be told: %s", ino, failures[0])
    raise Stale("a file was replaced by a longer one, and the kernel cannot be told")


def _is_held(thread: threading.Thread) -> bool:
    """Whether the kernel has the thread wait, uninterruptibly: for a page, by then."""
    try:
        stat = Path(f"/proc/self/task/{thread.native_id}/stat").read_text()
    except OSError:  # it has ended
        return False
    return stat.rpartition(")")[2].split()[0] == "D"

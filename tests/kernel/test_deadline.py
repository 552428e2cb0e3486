"""No operation outlasts `--deadline`, however many requests it sends in turn."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from pyfuse3 import FileHandleT, FileNameT, FUSEError, InodeT, ReaddirToken, RequestContext
from trio.testing import MockClock

from s3mount.config import spare
from s3mount.filesystem import Filesystem
from s3mount.kernel.crawlers import Crawlers
from s3mount.kernel.late import SECONDS
from s3mount.kernel.operations import Operations

DEADLINE = 10.0
PART = spare(DEADLINE) / 3
END = DEADLINE - 2 * PART


class _Slow:
    """A filesystem whose every question takes three requests of nine seconds."""

    async def _ask(self, *_: object) -> Any:
        for _request in range(3):
            await trio.sleep(9)

    def known(self, *_: object) -> None:
        """Nothing is known yet."""

    def directory_of(self, fh: int) -> int:
        """Every directory that is open is the same one."""
        return 1

    known_entries = known_bytes = known
    lookup = entries = read = _ask


@pytest.mark.parametrize("verb", ["lookup", "readdir", "read"])
async def test_an_operation_of_several_requests_ends_in_time(
    verb: str, autojump_clock: MockClock
) -> None:
    operations = Operations(cast(Filesystem, _Slow()), Crawlers(()), DEADLINE)
    arguments = {
        "lookup": (InodeT(1), FileNameT(b"a"), cast(RequestContext, SimpleNamespace())),
        "readdir": (FileHandleT(1), 0, ReaddirToken()),
        "read": (FileHandleT(1), 0, 4096),
    }
    began = trio.current_time()
    with pytest.raises(FUSEError) as raised:
        await getattr(operations, verb)(*arguments[verb])
    assert raised.value.errno == errno.ETIMEDOUT
    assert trio.current_time() - began == pytest.approx(END)


async def lookup(operations: Operations, directory: int, name: bytes) -> int:
    """The errno that a lookup ends in."""
    with pytest.raises(FUSEError) as raised:
        await operations.lookup(
            InodeT(directory), FileNameT(name), cast(RequestContext, SimpleNamespace())
        )
    return int(raised.value.errno)


async def test_who_waited_for_a_directory_is_told_what_the_first_was_told(
    autojump_clock: MockClock,
) -> None:
    """The kernel asks for one name of a directory at a time, and for the next when that failed."""
    operations = Operations(cast(Filesystem, _Slow()), Crawlers(()), DEADLINE)
    began = trio.current_time()
    for name in (b"a", b"b", b"c"):
        assert await lookup(operations, 1, name) == errno.ETIMEDOUT
    with pytest.raises(FUSEError):
        await operations.readdir(FileHandleT(1), 0, ReaddirToken())
    # The second one had a short try, for an endpoint that is back.
    assert trio.current_time() - began == pytest.approx(END + PART)
    assert trio.current_time() - began < DEADLINE
    # Another directory, and whoever asks later, has a deadline of its own.
    for directory, pause in ((2, 0.0), (1, SECONDS)):
        await trio.sleep(pause)
        began = trio.current_time()
        assert await lookup(operations, directory, b"a") == errno.ETIMEDOUT
        assert trio.current_time() - began == pytest.approx(END)


async def test_what_is_known_is_told_also_when_the_rest_was_late(
    autojump_clock: MockClock,
) -> None:
    filesystem = _Slow()
    operations = Operations(cast(Filesystem, filesystem), Crawlers(()), DEADLINE)
    assert await lookup(operations, 1, b"a") == errno.ETIMEDOUT
    # From now on it knows. (mypy: an instance takes the place of its class's method.)
    filesystem.known = lambda *_: (None, 1.0)  # type: ignore[assignment, method-assign]
    answer = await operations.lookup(
        InodeT(1), FileNameT(b"b"), cast(RequestContext, SimpleNamespace())
    )
    assert answer.st_ino == 0


async def test_an_endpoint_that_is_back_is_noticed_by_the_next_one(
    autojump_clock: MockClock,
) -> None:
    filesystem = _Slow()
    operations = Operations(cast(Filesystem, filesystem), Crawlers(()), DEADLINE)
    assert await lookup(operations, 1, b"a") == errno.ETIMEDOUT

    async def answer(*_: object) -> Any:
        await trio.sleep(PART / 2)
        return None, 1.0

    filesystem.lookup = answer  # type: ignore[method-assign]  # as above
    for name in (b"b", b"c"):
        found = await operations.lookup(
            InodeT(1), FileNameT(name), cast(RequestContext, SimpleNamespace())
        )
        assert found.st_ino == 0

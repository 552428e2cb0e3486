"""No operation outlasts `--deadline`, however many requests it sends in turn."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from pyfuse3 import FileHandleT, FileNameT, FUSEError, InodeT, ReaddirToken, RequestContext
from trio.testing import MockClock

from s3mount.filesystem import Filesystem
from s3mount.kernel.crawlers import Crawlers
from s3mount.kernel.operations import GRACE, Operations

DEADLINE = 10.0


class _Slow:
    """A filesystem whose every question takes three requests of nine seconds."""

    async def _ask(self, *_: object) -> Any:
        for _request in range(3):
            await trio.sleep(9)

    def known(self, *_: object) -> None:
        """Nothing is known yet."""

    known_entries = known
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
    assert trio.current_time() - began == pytest.approx(DEADLINE + GRACE)

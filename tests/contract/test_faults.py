"""Everything at once: retries over the lean path, on a server that fails, lies and stalls."""

from __future__ import annotations

import hashlib
import random

import pytest
import trio

from s3mount.metrics import Metrics
from s3mount.s3.connect import build
from s3mount.s3.retrying import Retrying
from tests.contract.conftest import config_for

# Needs nginx with Lua.
pytestmark = pytest.mark.long

SIZE = 3_000_000


@pytest.mark.parametrize("lean", [True, False])
async def test_no_wrong_byte(lean: bool) -> None:
    from benchmarks.modelled_s3 import Fault, FaultKind, ModelledS3

    bodies = {f"k{n}": hashlib.shake_128(bytes([n])).digest(SIZE) for n in range(5)}
    chance = random.Random(3)
    metrics = Metrics()
    with ModelledS3(ttfb=0, rate=0) as server:
        server.put_many("bucket", bodies)
        kinds = [
            FaultKind.SLOW_DOWN, FaultKind.INTERNAL_ERROR, FaultKind.RESET,
            FaultKind.RESET_BODY, FaultKind.STALL, FaultKind.EARLY_END, FaultKind.WHOLE_OBJECT,
            FaultKind.WRONG_RANGE, FaultKind.NEVER_ANSWER,
        ]  # fmt: skip
        server.set_faults(*[Fault(kind, share=0.05) for kind in kinds], seed=1)
        config = config_for(server.endpoint_url, read_timeout=0.3)
        inner = await build(config, metrics, config.region, lean=lean)
        bucket = Retrying(inner, retries=20, deadline=30, metrics=metrics)

        # Known beforehand: of a first answer with a wrong ETag nobody could tell that it is.
        etags = {key: f'"{hashlib.md5(body).hexdigest()}"' for key, body in bodies.items()}

        async def read() -> None:
            for _ in range(25):
                key = chance.choice(list(bodies))
                into = [memoryview(bytearray(chance.randrange(1, 300_000))) for _ in range(4)]
                # Within the object: a named version cannot be shorter than the caller knows.
                start = chance.randrange(SIZE - sum(map(len, into)) + 1)
                told: list[int] = []
                reply = await bucket.get_range(
                    key, start, into, etag=etags[key], on_filled=told.append
                )
                want = bodies[key][start : start + sum(map(len, into))]
                assert reply.received == len(want)
                assert b"".join(into) == want
                assert told == list(range(len(told)))

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(read)
        await bucket.aclose()
    assert metrics["retries"] > 50

"""The queue of rows to write: bounded, in order, and every buffer is given back once."""

from __future__ import annotations

from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from s3mount.cache.write_queue import PendingRow, WriteQueue

LIMIT, BATCH_BYTES, BATCH_ROWS = 100, 30, 4

steps = st.lists(st.one_of(st.integers(0, 60), st.just("take"), st.just("release")), max_size=60)


@given(steps=steps)
def test_against_a_list(steps: list[int | str]) -> None:
    queue = WriteQueue(limit=LIMIT, batch_bytes=BATCH_BYTES, batch_rows=BATCH_ROWS)
    queued: list[tuple[int, int]] = []
    taken: list[list[PendingRow]] = []
    released: list[int] = []
    for number, step in enumerate(steps):
        if step == "take":
            batch = queue.take_batch()
            assert [row.key for row in batch] == [str(n) for n, _ in queued[: len(batch)]]
            assert bool(batch) == bool(queued)
            assert len(batch) <= BATCH_ROWS
            assert len(batch) == 1 or sum(len(row.data) for row in batch) <= BATCH_BYTES
            del queued[: len(batch)]
            taken.append(batch)
        elif step == "release":
            if taken:
                batch = taken.pop()
                queue.release(batch)
                assert released[len(released) - len(batch) :] == [int(row.key) for row in batch]
        elif isinstance(step, int) and queue.has_room(step):
            row = PendingRow(str(number), memoryview(bytes(step)), partial(released.append, number))
            queue.append(row)
            queued.append((number, step))
            assert queue.largest >= step
        held = sum(size for _, size in queued) + sum(len(r.data) for batch in taken for r in batch)
        assert queue.waiting_bytes == held <= LIMIT
        assert len(queue) == len(queued)
    assert len(released) == len(set(released))

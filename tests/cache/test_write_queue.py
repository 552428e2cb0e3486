"""The queue of rows to write: bounded, in order, and every buffer is given back once."""

from __future__ import annotations

from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from s3mount.cache.write_queue import GATHER_ROWS, LATE_ROWS, SMALL, PendingRow, WriteQueue

LIMIT, GATHER, BATCH_BYTES, BATCH_ROWS = 100, 50, 30, 4


def new_queue(limit: int = LIMIT, gather: int = GATHER) -> WriteQueue:
    return WriteQueue(limit=limit, gather=gather, batch_bytes=BATCH_BYTES, batch_rows=BATCH_ROWS)


def row(size: int, keeps: int | None = None) -> PendingRow:
    return PendingRow(
        "key", memoryview(bytes(size)), lambda: None, size if keeps is None else keeps
    )


def due(queue: WriteQueue) -> bool:
    return queue.is_due


sizes = st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda pair: (min(pair), max(pair)))
steps = st.lists(st.one_of(sizes, st.just("take"), st.just("release")), max_size=60)


@given(steps=steps)
def test_against_a_list(steps: list[tuple[int, int] | str]) -> None:
    queue = new_queue()
    queued: list[tuple[int, int]] = []  # number, and what the row keeps
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
        elif isinstance(step, tuple) and queue.has_room(step[1]):
            size, keeps = step
            queue.append(
                row(size, keeps)._replace(key=str(number), release=partial(released.append, number))
            )
            queued.append((number, keeps))
            assert queue.largest >= size
        held = sum(keeps for _, keeps in queued) + sum(r.keeps for batch in taken for r in batch)
        assert queue.waiting_bytes == held <= LIMIT
        assert queue.is_behind == (held > LIMIT * 7 / 8)
        assert len(queue) == len(queued)
    assert len(released) == len(set(released))


def test_small_rows_are_gathered_and_then_all_of_them_are_due() -> None:
    queue = new_queue()
    queue.append(row(GATHER))
    assert not due(queue)
    queue.append(row(1))
    assert due(queue)
    queue.release(queue.take_batch())
    assert due(queue)
    queue.release(queue.take_batch())
    assert not due(queue)
    queue.append(row(1))
    assert not due(queue)


def test_a_large_row_takes_the_small_ones_along() -> None:
    queue = new_queue(limit=2 * SMALL, gather=2 * SMALL)
    queue.append(row(1))
    queue.append(row(SMALL))
    assert due(queue)


def test_no_more_than_so_many_rows_are_gathered() -> None:
    queue = new_queue()
    for _ in range(GATHER_ROWS):
        queue.append(row(0))
    assert not due(queue)
    queue.append(row(0))
    assert due(queue)


def test_large_rows_are_gathered_until_they_make_a_batch() -> None:
    queue = WriteQueue(limit=100 * SMALL, gather=100 * SMALL, batch_bytes=4 * SMALL, batch_rows=9)
    for _ in range(2):
        for _ in range(3):
            queue.append(row(SMALL))
            assert not due(queue)
        queue.append(row(SMALL))
        assert due(queue)
        assert len(queue.take_batch()) == 4
        assert not due(queue)


def test_small_rows_that_keep_large_buffers_are_due_when_they_keep_a_quarter() -> None:
    queue = WriteQueue(limit=100, gather=100, batch_bytes=30, batch_rows=4)
    for _ in range(2):
        queue.append(row(2, keeps=24))
        assert not due(queue)
        queue.append(row(1))  # this one keeps no more than it has
        assert not due(queue)
        queue.append(row(0, keeps=1))
        assert due(queue)
        queue.release(queue.take_batch())
        assert not due(queue)


def test_a_row_that_keeps_more_than_may_wait_is_given_up() -> None:
    queue = new_queue()
    assert not queue.has_room(LIMIT + 1)
    assert queue.postpone(row(1, keeps=LIMIT + 1), lambda: True) == 1
    assert queue.postpone(row(1, keeps=LIMIT), lambda: True) == 0
    queue.append(row(1, keeps=1))
    assert queue.catch_up() == 0  # it stays where it is, as there is no room yet
    queue.release(queue.take_batch())
    assert queue.catch_up() == 0
    assert queue.waiting_bytes == LIMIT


def test_where_little_may_wait_large_rows_wait_for_nothing() -> None:
    queue = WriteQueue(limit=8 * SMALL, gather=8 * SMALL, batch_bytes=4 * SMALL, batch_rows=9)
    queue.append(row(SMALL))
    assert due(queue)


def test_what_found_no_room_is_queued_when_there_is_some_unless_it_is_gone() -> None:
    queue = new_queue()
    queue.append(row(LIMIT))
    claimed: list[str] = []

    def late(key: str, *, is_there: bool) -> int:
        def reclaim() -> bool:
            claimed.append(key)
            return is_there

        return queue.postpone(row(40)._replace(key=key), reclaim)

    assert [late("a", is_there=True), late("b", is_there=False)] == [0, 0]
    assert [late("c", is_there=True), late("d", is_there=True)] == [0, 0]
    assert queue.catch_up() == 0
    assert claimed == []  # there is no room yet
    queue.release(queue.take_batch())
    assert queue.catch_up() == 1
    assert claimed == ["a", "b", "c"]
    assert due(queue)
    assert [queue.take_batch()[0].key for _ in range(2)] == ["a", "c"]
    assert queue.forget_late() == 1
    assert queue.waiting_bytes == 80


def test_only_so_many_are_remembered_and_none_that_never_fits() -> None:
    queue = new_queue()
    assert queue.postpone(row(LIMIT + 1), lambda: True) == 1
    lost = [queue.postpone(row(1), lambda: True) for _ in range(LATE_ROWS + 2)]
    assert lost == [0] * LATE_ROWS + [1, 1]
    assert queue.forget_late() == LATE_ROWS

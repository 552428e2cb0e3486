"""Files that wait to become rows: in order, none twice, and never for long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from s3mount.cache.block_disk import StoredBlock
from s3mount.cache.uncommitted import Uncommitted

LIMIT = 100 << 10

steps = st.lists(st.one_of(st.integers(0, 30 << 10), st.just("take")), max_size=60)


@given(steps=steps)
def test_against_a_list(steps: list[int | str]) -> None:
    uncommitted = Uncommitted(LIMIT)
    added: list[tuple[str, StoredBlock]] = []
    on_disk = 0
    for number, step in enumerate(steps):
        if isinstance(step, int):
            cut = step // 3
            rows = [(f"{number}-{n}", StoredBlock("f", 0, n, 0)) for n in (cut, step - cut)]
            uncommitted.add(rows, 7.0)
            added += rows
            on_disk += -(-step // 4096) * 4096
        else:
            assert uncommitted.take() == added
            added, on_disk = [], 0
        assert uncommitted.is_full == (on_disk >= LIMIT)
        assert uncommitted.is_due(7.0) == uncommitted.is_full
        assert uncommitted.is_due(8.0) == bool(added)
        assert len(uncommitted) == len(added)


def test_the_first_decides_how_old_they_are_and_so_many_are_due() -> None:
    uncommitted = Uncommitted(LIMIT)
    block = ("key", StoredBlock("name", 0, 0, 0))
    uncommitted.add([block], 1.0)
    uncommitted.add([block] * 254, 1.9)
    assert not uncommitted.is_due(1.99)
    assert uncommitted.is_due(2.0)
    uncommitted.add([block], 1.9)
    assert uncommitted.is_due(1.9)

"""What the window promises: nothing for random reads, soon everything for a stream's."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount.reading.window import (
    LONGEST_JUMP,
    MAX_STREAMS,
    PATIENCE,
    SLACK,
    Jumps,
    Limits,
    Plan,
    Stream,
    Stretch,
    Window,
)

MIB = 1 << 20
BLOCK = MIB
SECTOR = 128 * 1024
LIMITS = Limits(window=16 * MIB, run=4 * MIB)
FILE = 256 * MIB

reads = st.lists(
    st.tuples(
        st.one_of(
            st.integers(0, FILE - 1),
            st.integers(0, 255).map(lambda n: n * MIB),
            st.integers(0, 64).map(lambda n: n * 4096),
        ),
        st.sampled_from([1, 4096, 128 * 1024, MIB]),
    ),
    max_size=60,
)


def window(jumps: Jumps | None = None) -> Window:
    return Window(BLOCK, SECTOR, jumps or Jumps())


def went_on(*lengths: int) -> Jumps:
    """What is known after jumps that went on for so many bytes, each in a file of its own."""
    jumps = Jumps()
    for size in lengths:
        state = window(jumps)
        for offset in range(100 * MIB, 100 * MIB + size, 4096):
            state.read(offset, 4096, FILE, LIMITS)
        state.leave()
    return jumps


def length(stretches: tuple[Stretch, ...]) -> int:
    return sum(stop - start for start, stop in stretches)


@given(
    reads=reads,
    size=st.integers(1, FILE),
    limits=st.builds(Limits, st.integers(0, 16 * MIB), st.sampled_from([MIB, 4 * MIB])),
)
def test_whatever_is_read_plans_stay_within_the_file_and_the_limits(
    reads: list[tuple[int, int]], size: int, limits: Limits
) -> None:
    state = window()
    for at, wanted in reads:
        offset = at % size
        plan = state.read(offset, wanted, size, limits)
        assert plan.demand[0] == offset
        assert min(offset + wanted, size) <= plan.demand[1] <= size
        for start, stop in (*plan.ahead, *plan.given_up):
            assert 0 <= start < stop <= size
        if plan.ahead:
            assert plan.stream is not None
            assert plan.run >= BLOCK or plan.stream.step > 0
            assert length(plan.ahead) <= max(limits.window, 32 * wanted)
        assert len(state.wanted) <= MAX_STREAMS + 1


@pytest.mark.parametrize(("size", "demand"), [(FILE, BLOCK), (10_000, 10_000)])
def test_a_first_read_at_the_start_brings_the_first_block(size: int, demand: int) -> None:
    plan = window().read(0, 4096, size, LIMITS)
    assert plan == Plan((0, demand), (), 0, (), None)


@given(offset=st.integers(1, FILE - 1))
def test_a_first_read_elsewhere_brings_what_it_asks_for(offset: int) -> None:
    plan = window().read(offset, 4096, FILE, LIMITS)
    assert plan == Plan((offset, min(offset + 4096, FILE)), (), 0, (), None)


def test_random_reads_bring_little_more_than_they_ask_for() -> None:
    numbers = random.Random(7)
    state = window()
    size = 64 << 30  # so large that two reads hardly meet
    extra = 0
    for _ in range(1000):
        offset = numbers.randrange(1, size // 4096) * 4096
        plan = state.read(offset, 4096, size, LIMITS)
        extra += plan.demand[1] - plan.demand[0] - 4096 + length(plan.ahead)
    assert extra <= 4 * MIB


@pytest.mark.parametrize("size", [4096, 128 * 1024, MIB])
@pytest.mark.parametrize("begin", [0, 100 * MIB])
def test_a_stream_asks_for_every_byte_once_and_stays_ahead(size: int, begin: int) -> None:
    state = window()
    asked: list[Stretch] = []
    reached = begin
    steady = range(begin + 32 * MIB, FILE - LIMITS.window, size)
    for offset in range(begin, FILE, size):
        plan = state.read(offset, size, FILE, LIMITS)
        assert plan.given_up == ()
        asked += plan.ahead
        reached = max([reached, plan.demand[1], *(stop for _, stop in plan.ahead)])
        if offset in steady:
            assert reached - offset >= LIMITS.window // 2
    assert all(before[1] == behind[0] for before, behind in pairwise(asked))
    assert asked[-1][1] == FILE
    grown = [stop - start for start, stop in asked if steady.start < start and stop < FILE]
    assert all(run >= MIB for run in grown), "requests are long"


def test_runs_are_an_eighth_of_a_window_that_grows_and_a_quarter_of_one_that_is_full() -> None:
    state = window()
    runs: dict[int, set[int]] = {}  # by window
    for offset in range(0, 4 * MIB, 128 * 1024):
        plan = state.read(offset, 128 * 1024, FILE, Limits(window=12 * MIB, run=8 * MIB))
        if plan.stream is not None:
            runs.setdefault(plan.stream.window, set()).add(plan.run)
    assert runs == {
        4 * MIB: {MIB},
        6 * MIB: {MIB},
        8 * MIB: {MIB},
        10 * MIB: {MIB},
        12 * MIB: {3 * MIB},
    }


def test_the_window_grows_with_what_was_read_in_a_row() -> None:
    state = window()
    state.read(0, 4096, FILE, LIMITS)
    windows = []
    for offset in range(4096, 4 * MIB, 4096):
        plan = state.read(offset, 4096, FILE, LIMITS)
        assert plan.stream is not None
        windows.append(plan.stream.window)
    assert windows == sorted(windows)
    assert windows[0] < MIB
    assert windows[-1] == LIMITS.window


@given(numbers=st.randoms(use_true_random=False))
def test_an_established_stream_may_come_out_of_order(numbers: random.Random) -> None:
    state = window()
    size = 128 * 1024
    offsets = list(range(0, 32 * MIB, size))
    for i in range(8, len(offsets), 4):  # the kernel has several requests under way
        group = offsets[i : i + 4]
        numbers.shuffle(group)
        offsets[i : i + 4] = group
    assert size * 4 <= SLACK
    asked: list[Stretch] = []
    for offset in offsets:
        plan = state.read(offset, size, FILE, LIMITS)
        assert plan.stream is not None or offset == 0
        asked += plan.ahead
    assert asked[-1][1] >= 40 * MIB
    assert all(before[1] <= behind[0] for before, behind in pairwise(asked))


def test_who_jumps_as_others_did_has_all_of_it_fetched_at_once() -> None:
    state = window(went_on(MIB, 2 * MIB))
    offset = 7 * MIB + 4096
    plan = state.read(offset, 4096, FILE, LIMITS)
    assert plan.demand == (offset, offset + 4096)
    assert plan.ahead == ((offset + 4096, 8 * MIB + SECTOR),)
    for at in range(offset + 4096, offset + MIB, 4096):
        assert state.read(at, 4096, FILE, LIMITS).ahead == ()
    # It goes on, so it is a stream like any other.
    ahead = [state.read(at, 4096, FILE, LIMITS).ahead for at in range(offset + MIB, 9 * MIB, 4096)]
    assert sum(map(length, ahead)) > LIMITS.window // 2


@pytest.mark.parametrize("lengths", [(MIB,), (MIB, MIB, 4096), (MIB, SECTOR)])
def test_a_jump_is_random_access_unless_all_of_the_last_went_on(lengths: tuple[int, ...]) -> None:
    plan = window(went_on(*lengths)).read(7 * MIB, 4096, FILE, LIMITS)
    assert plan == Plan((7 * MIB, 7 * MIB + 4096), (), 0, (), None)


def test_what_is_expected_of_a_jump_is_bounded() -> None:
    jumps = went_on(30 * MIB, 30 * MIB)
    plan = window(jumps).read(7 * MIB, 4096, FILE, LIMITS)
    assert length(plan.ahead) == LONGEST_JUMP + SECTOR - 4096
    plan = window(jumps).read(7 * MIB, 4096, FILE, Limits(window=0, run=MIB))
    assert plan.ahead == ()
    # A read that asks for more than is expected tells all that it wants.
    plan = window(went_on(MIB, MIB)).read(7 * MIB, MIB, FILE, LIMITS)
    assert plan.ahead == ()


def test_jumps_in_one_file_tell_of_each_other_and_reads_from_its_start_tell_nothing() -> None:
    jumps = Jumps()
    state = window(jumps)
    for begin in (200 * MIB, 0, 50 * MIB, 100 * MIB):
        assert jumps.expected == 0
        for offset in range(begin, begin + MIB, 128 * 1024):
            state.read(offset, 128 * 1024, FILE, LIMITS)
    assert state.read(150 * MIB, 4096, FILE, LIMITS).ahead == (
        (150 * MIB + 4096, 151 * MIB + SECTOR),
    )


def test_random_reads_after_jumps_that_went_on_cost_one_guess() -> None:
    """And a read near to where one was expected to go on is not taken for its own."""
    state = window(went_on(MIB, MIB))
    assert length(state.read(7 * MIB, 4096, FILE, LIMITS).ahead) == MIB + SECTOR - 4096
    given_up: list[Stretch] = []
    for offset in (7 * MIB + 300_000, 90 * MIB, 8 * MIB, 7 * MIB + 8192):
        plan = state.read(offset, 4096, FILE, LIMITS)
        assert (plan.ahead, plan.stream) == ((), None)
        given_up += plan.given_up
    assert given_up == [(7 * MIB + 4096, 8 * MIB + SECTOR)]


def test_reading_backward_is_a_stream_too() -> None:
    state = window()
    size = 256 * 1024
    low = FILE
    for offset in range(FILE - size, FILE - 64 * MIB, -size):
        plan = state.read(offset, size, FILE, LIMITS)
        for start, stop in plan.ahead:
            assert stop <= low or low == FILE
            low = start
    assert low <= FILE - 64 * MIB - LIMITS.window // 2
    again = state.read(FILE - 64 * MIB + size, size, FILE, LIMITS)
    assert again.ahead == ()
    for offset in range(8 * MIB, -1, -size):
        plan = state.read(offset, size, FILE, LIMITS)
        assert all(start >= 0 for start, _ in plan.ahead)


@pytest.mark.parametrize("step", [3 * MIB, -3 * MIB])
def test_reads_at_one_distance_have_the_next_ones_fetched_and_nothing_between(step: int) -> None:
    state = window()
    size = 4096
    begin = 10 * MIB if step > 0 else FILE - 10 * MIB
    fetched: set[Stretch] = set()
    for i in range(80):
        offset = begin + step * i
        if not 0 <= offset < FILE:
            break
        plan = state.read(offset, size, FILE, LIMITS)
        assert i < 4 or (offset, offset + size) in fetched
        assert fetched.isdisjoint(plan.ahead)
        fetched |= set(plan.ahead)
    assert all((start - begin) % step == 0 and stop - start == size for start, stop in fetched)
    assert state.read(begin + 5, 1, FILE, LIMITS).stream is None, "it is out of step"


@pytest.mark.parametrize("alone", [True, False])
def test_readers_that_begin_at_one_distance_all_at_once_are_no_strided_reader(alone: bool) -> None:
    state = window()
    plans = [state.read(i * 16 * MIB, 4096, FILE, LIMITS, alone=alone or i == 0) for i in range(4)]
    assert [plan.stream is not None for plan in plans[:2]] == [False, False]
    assert [plan.stream is not None for plan in plans[2:]] == [alone, alone]


def test_a_stream_that_the_reader_turned_from_is_given_up() -> None:
    state = window()
    for offset in range(0, 8 * MIB, MIB):
        state.read(offset, MIB, FILE, LIMITS)
    [wanted] = state.wanted
    given_up: list[Stretch] = []
    for i in range(PATIENCE + 1):
        given_up += state.read((100 + i * i * 10) * MIB, 4096, FILE, LIMITS).given_up
    assert given_up == [wanted]
    assert state.wanted == []


def test_what_another_stream_goes_on_to_read_is_not_given_up() -> None:
    state = window()
    for offset in range(0, 4 * MIB, MIB // 2):
        state.read(offset, MIB // 2, FILE, LIMITS)
    wanted = state.wanted
    given_up: tuple[Stretch, ...] = ()
    for offset in range(8 * MIB, 16 * MIB, MIB // 2):  # where the first one has read ahead to
        if given_up := state.read(offset, MIB // 2, FILE, LIMITS).given_up:
            break
        wanted = state.wanted
    (begin, end), (position, ahead) = wanted
    assert begin < position < ahead < end
    assert given_up == ((begin, position // BLOCK * BLOCK), (ahead, end))


def test_a_stream_that_is_waited_for_is_not_given_up() -> None:
    state = window()
    state.read(0, MIB, FILE, LIMITS)
    plan = state.read(MIB, MIB, FILE, LIMITS)
    assert plan.stream is not None
    plan.stream.pending += 1
    numbers = random.Random(2)
    for _ in range(20):
        at = numbers.randrange(50 * MIB, FILE)
        assert state.read(at, 1, FILE, LIMITS).given_up == ()


def test_streams_that_take_turns_are_all_kept() -> None:
    state = window()
    # At no one distance: that would be a strided stream.
    starts = [(stream * 27 + stream * stream % 5) * MIB for stream in range(MAX_STREAMS)]
    given_up: list[Stretch] = []
    for step in range(24):
        for start in starts:
            plan = state.read(start + step * MIB, MIB, FILE, LIMITS)
            if step > 2:
                given_up += plan.given_up
    assert given_up == []
    assert len(state.wanted) == MAX_STREAMS


def test_no_more_than_so_many_streams_are_remembered() -> None:
    state = window()
    for stream in range(MAX_STREAMS + 5):
        state.read(stream * 15 * MIB, 4096, FILE, LIMITS)
        plan = state.read(stream * 15 * MIB + 4096, 4096, FILE, LIMITS)
        assert plan.stream is not None
        plan.stream.pending += 1
    assert len(state.wanted) <= MAX_STREAMS + 1


@pytest.mark.parametrize(
    ("step", "expected"), [(0, (100, 250)), (-1, (100, 200)), (30, (100, 100))]
)
def test_what_did_not_fit_into_memory_was_not_asked_for(step: int, expected: Stretch) -> None:
    stream = Stream(position=100, ahead=400, step=step, seen=10, used=1)
    stream.fell_short(200, 250)
    assert stream.wanted == expected


def test_without_memory_nothing_is_read_ahead() -> None:
    state = window()
    for offset in range(0, 16 * MIB, 4096):
        assert state.read(offset, 4096, FILE, Limits(0, BLOCK)).ahead == ()
    state = window()
    for offset in range(16 * MIB, 0, -4096):
        assert state.read(offset, 4096, FILE, Limits(0, BLOCK)).ahead == ()
    state = window()
    for offset in range(0, FILE, 3 * MIB):
        assert state.read(offset, 4096, FILE, Limits(0, BLOCK)).ahead == ()

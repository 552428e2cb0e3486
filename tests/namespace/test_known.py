"""Known stretches against the plainest model: every point of a small order, one by one."""

from __future__ import annotations

from itertools import pairwise, product
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from s3mount.namespace.known import END, START, Known, after

ALPHABET = ("\0", "/", "a")
POINTS = sorted("".join(letters) for n in range(4) for letters in product(ALPHABET, repeat=n))

positions = st.sampled_from([*POINTS, END])
times = st.sampled_from([1.0, 2.0, 3.0])
acts = st.lists(
    st.one_of(
        st.tuples(st.just("learn"), positions, positions, times),
        st.tuples(st.just("forget"), positions, positions, st.just(0.0)),
    ),
    max_size=12,
)

Act = tuple[str, str, str, float]


def replay(acts: list[Act]) -> tuple[Known, dict[str, float]]:
    """The same acts done to a `Known` and to a dict of points."""
    known, model = Known(), dict[str, float]()
    for act, lo, hi, time in acts:
        within = [point for point in POINTS if lo <= point < hi]
        if act == "learn":
            known.learn(lo, hi, time)
            model.update(dict.fromkeys(within, time))
        else:
            known.forget(lo, hi)
            for point in within:
                model.pop(point, None)
    return known, model


@given(acts=acts)
def test_each_point_is_known_since_it_was_learned_last(acts: list[Act]) -> None:
    known, model = replay(acts)
    assert {point: known.since(point) for point in POINTS} == {
        point: model.get(point) for point in POINTS
    }
    assert known.since(END) is None


@given(acts=acts)
def test_intervals_stay_sorted_disjoint_and_not_empty(acts: list[Act]) -> None:
    intervals = replay(acts)[0].intervals()
    assert all(lo < hi for lo, hi, _ in intervals)
    for (_, hi, time), (lo, _, next_time) in pairwise(intervals):
        assert hi <= lo
        assert hi < lo or time != next_time, "equal neighbours are one interval"


@given(acts=acts, position=positions)
def test_the_interval_around_a_position_is_the_one_that_holds_it(
    acts: list[Act], position: str
) -> None:
    known, _ = replay(acts)
    lo, hi, time = known.around(position)
    learned = known.since(position)
    if learned is None:
        assert (lo, hi) == (position, position)
    else:
        assert (lo, hi, time) in known.intervals()
        assert lo <= position < hi
        assert time == learned


@given(acts=acts, position=positions, not_before=times)
def test_reach_ends_at_the_first_point_that_is_dark_or_old(
    acts: list[Act], position: str, not_before: float
) -> None:
    known, model = replay(acts)
    onward = [point for point in [*POINTS, END] if point >= position]
    first_bad = next(p for p in onward if model.get(p, 0.0) < not_before)
    assert known.reach(position, not_before) == first_bad


@given(acts=acts, lo=positions, hi=positions, time=times)
def test_what_is_older_is_all_but_what_is_newer(
    acts: list[Act], lo: str, hi: str, time: float
) -> None:
    known, model = replay(acts)
    stretches = known.older(lo, hi, time)
    within = {point for point in POINTS for lo_, hi_ in stretches if lo_ <= point < hi_}
    assert within == {p for p in POINTS if lo <= p < hi and model.get(p, 0.0) <= time}
    assert all(first < stop for first, stop in stretches)
    assert all(stop < first for (_, stop), (first, _) in pairwise(stretches))


@given(acts=acts)
def test_the_oldest_is_the_least_of_all_times(acts: list[Act]) -> None:
    known, _ = replay(acts)
    assert known.oldest() == min((time for _, _, time in known.intervals()), default=None)


@given(position=st.text(), other=st.text())
def test_nothing_lies_between_a_position_and_the_one_after_it(position: str, other: str) -> None:
    assert position < after(position)
    assert not position < other < after(position)


@given(key=st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_the_end_is_behind_every_key(key: str) -> None:
    fits_s3 = len(key.encode()) <= 1024
    assert key >= START
    assert key < END or not fits_s3
    assert len(END.encode()) > 1024


def test_an_interval_can_reach_to_the_end() -> None:
    known = Known()
    known.learn(START, END, 1.0)
    assert known.reach(START, 1.0) == END
    assert known.since("\U0010ffff" * 256) == 1.0


def test_learning_an_empty_stretch_changes_nothing() -> None:
    known, expected = Known(), list[Any]()
    known.learn("b", "a", 1.0)
    known.learn("a", "a", 1.0)
    assert known.intervals() == expected

"""The predictors of walks: what orders they recognise, how soon, and what they leave alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3mount.namespace.lookahead import (
    LOOKUP_REACH,
    LOOKUPS_PROOF,
    PAGES_MOST,
    PATIENCE,
    PROOF,
    REACH,
    STREAKS_KEPT,
    WALK_REACH,
    InOrder,
    Streaks,
    Walk,
    Walks,
)

seeds = st.integers(0, 2**32)


# --- files --------------------------------------------------------------------------------

# A place is a number; `shown` is the order of the numbers.


def shown(end: int) -> Callable[[int, int], list[int]]:
    return lambda place, most: list(range(place + 1, min(end, place + 1 + most)))


def every(step: int, end: int) -> Callable[[int, int], list[int]]:
    """Only the places that leave the same remainder: "of the same extension"."""
    return lambda place, most: list(range(place + step, end, step))[:most]


def permuted(order: Sequence[int]) -> Callable[[int, int], list[int]]:
    at = {place: i for i, place in enumerate(order)}
    return lambda place, most: list(order[at[place] + 1 : at[place] + 1 + most])


def streaks(*orders: Callable[[int, int], list[int]], most: int = 64) -> Streaks[int]:
    return Streaks(orders, most, lambda _a, _b: True)


class Reader:
    """Opens files, and keeps the account that no appetite must exceed."""

    def __init__(self, predictor: Streaks[int], most: int = 64) -> None:
        self.predictor = predictor
        self.most = most
        self.asked: list[int] = []
        self.opened: set[int] = set()
        self.per_open: list[int] = []

    def open(self, places: Iterable[int]) -> Reader:
        for place in places:
            wanted = self.predictor.opened(place)
            assert len(wanted) <= self.most
            assert len(set(wanted)) == len(wanted)
            self.opened.add(place)
            self.asked += wanted
            self.per_open.append(len(wanted))
        return self

    @property
    def outstanding(self) -> int:
        return len(set(self.asked) - self.opened)


def test_in_order_it_asks_for_1_2_4_and_up_to_most() -> None:
    reader = Reader(streaks(shown(1000)), 64)
    outstanding = []
    for place in range(40):
        reader.open([place])
        outstanding.append(reader.outstanding)
    assert outstanding[:9] == [0, 0, 1, 2, 4, 8, 16, 32, 64]
    assert set(outstanding[9:]) == {64}
    assert reader.asked == list(range(3, 3 + len(reader.asked)))  # in order, each once


@given(most=st.integers(0, 200), end=st.integers(0, 400))
def test_in_order_each_file_is_asked_for_once(most: int, end: int) -> None:
    reader = Reader(streaks(shown(end), most=most), most)
    for place in range(end):
        reader.open([place])
        assert reader.outstanding <= most
    assert reader.asked == (list(range(PROOF + 1, end)) if most else [])
    assert reader.predictor.wasted == []


@given(most=st.integers(0, 64), opens=st.lists(st.integers(0, 60), max_size=300))
def test_the_appetite_is_bounded_whatever_is_opened(most: int, opens: list[int]) -> None:
    """At most `most` for each streak, and never more than twice what its steps have proven."""
    reader = Reader(streaks(shown(61), every(3, 61), most=most), most)
    for place in opens:
        before = len(reader.asked)
        reader.open([place])
        assert len(reader.asked) - before <= most
    assert len(reader.predictor._streaks) <= STREAKS_KEPT
    for streak in reader.predictor._streaks:
        assert sum(streak.upcoming.values()) <= most
        assert len(streak.passed) <= max(most, REACH)
        if streak.steps < PROOF:
            assert not any(streak.upcoming.values())
    if max([0, *(s.steps for s in reader.predictor._streaks)]) < PROOF:
        assert reader.predictor.wasted == [] or len(opens) > STREAKS_KEPT


@given(seed=seeds, count=st.sampled_from([500, 1300, 5000]))
@settings(max_examples=15)
def test_a_random_order_triggers_next_to_nothing(seed: int, count: int) -> None:
    """A chance step is REACH of `count` places for each of the streaks kept; two make a fetch.

    So some (8 * 3 / count)^2 * count fetches are expected: 1.2 for 500 files, 0.1 for 5,000.
    """
    places = list(range(count))
    random.Random(seed).shuffle(places)
    reader = Reader(streaks(shown(count), every(2, count))).open(places)
    assert len(reader.asked) <= count // 50
    if count == 5000:
        assert len(reader.asked) <= 25


@given(seed=seeds, processes=st.integers(2, 8))
@settings(max_examples=8)
def test_shuffled_by_several_processes_triggers_next_to_nothing(seed: int, processes: int) -> None:
    """Each process its own share of one shuffle, at its own pace, as a data loader has it."""
    rng = random.Random(seed)
    places = list(range(5000))
    rng.shuffle(places)
    shares = [places[i::processes] for i in range(processes)]
    merged = []
    while any(shares):
        share = rng.choice([share for share in shares if share])
        merged.append(share.pop())
    reader = Reader(streaks(shown(5000))).open(merged)
    assert len(reader.asked) <= 25


@given(seed=seeds, orderly=st.integers(0, 200))
def test_a_broken_pattern_stops_within_one_step(seed: int, orderly: int) -> None:
    reader = Reader(streaks(shown(100_000))).open(range(orderly))
    asked = len(reader.asked)
    rng = random.Random(seed)
    # Far from all that was read, and from each other.
    elsewhere = rng.sample(range(1_000, 100_000, 50), 200)
    reader.open(elsewhere)
    assert len(reader.asked) == asked
    # All that was asked for in vain has been given up, once.
    assert sorted(reader.predictor.wasted) == sorted(set(reader.asked) - reader.opened)
    assert reader.outstanding <= 64


def test_several_streaks_at_once() -> None:
    """As many programs as streaks are kept, each in its own part of the directory."""
    ranges = [range(i * 1000, i * 1000 + 300) for i in range(STREAKS_KEPT)]
    opens = [place for places in zip(*ranges, strict=True) for place in places]
    reader = Reader(streaks(shown(10_000))).open(opens)
    late = [place for place in opens if place % 1000 > PROOF]
    assert set(reader.asked) >= set(late)
    assert len(reader.asked) == len(set(reader.asked))


@given(step=st.integers(2, 5), offset=st.integers(0, 4))
def test_files_of_one_extension(step: int, offset: int) -> None:
    """The order in which steps are closest is taken, not the first that holds them."""
    reader = Reader(streaks(shown(1000), every(step, 1000))).open(range(offset, 500, step))
    assert {place % step for place in reader.asked} == {offset % step}


def test_another_order_than_the_shown_one() -> None:
    by_locale = list(range(0, 200, 2)) + list(range(1, 200, 2))
    reader = Reader(streaks(shown(200), permuted(by_locale))).open(by_locale)
    missed = set(by_locale) - set(reader.asked)
    assert len(missed) <= 2 * PROOF
    assert reader.predictor.wasted == []


def test_an_order_that_ends_is_followed_by_the_next() -> None:
    """A directory's end: the order in it has no more, the one across directories has."""

    def within(place: int, most: int) -> list[int]:
        return list(range(place + 1, min(place // 10 * 10 + 10, place + 1 + most)))

    reader = Reader(streaks(within, shown(1000))).open(range(200))
    # Only before the first end was anything unknown.
    assert set(range(200)) - set(reader.asked) == {0, 1, 2, 10}


@given(seed=seeds, processes=st.integers(2, 8))
def test_readers_that_overtake_each_other(seed: int, processes: int) -> None:
    """xargs -P: the next file goes to whoever is free, so opens arrive a little out of order."""
    rng = random.Random(seed)
    waiting = list(range(1000))
    opens = []
    while waiting:
        opens.append(waiting.pop(min(len(waiting) - 1, rng.randrange(processes))))
    reader = Reader(streaks(shown(1000))).open(opens)
    assert len(set(reader.asked)) > 700
    assert len(reader.asked) == len(set(reader.asked))
    assert len(set(reader.predictor.wasted) - reader.opened) == 0


def test_batches_of_several_readers() -> None:
    """xargs -P 4 -n 100: at the end of its batch, a reader runs into the next one's."""
    batches = [list(range(i * 100, i * 100 + 100)) for i in range(40)]
    opens: list[int] = []
    running = [batches.pop(0) for _ in range(4)]
    while running:
        for batch in running[:]:
            opens.append(batch.pop(0))
            if not batch:
                running.remove(batch)
                if batches:
                    running.append(batches.pop(0))
    reader = Reader(streaks(shown(4000))).open(opens)
    assert len(reader.asked) == len(set(reader.asked))
    # Nothing is asked for that was opened before.
    position = {place: i for i, place in enumerate(opens)}
    predictor = streaks(shown(4000))
    for i, place in enumerate(opens):
        assert all(position[p] > i for p in predictor.opened(place) if p in position)


def test_a_second_pass_is_fetched_ahead_again() -> None:
    reader = Reader(streaks(shown(500))).open(range(500))
    first = len(reader.asked)
    reader.open(range(500))
    assert len(reader.asked) - first >= first - REACH


def test_more_skipped_than_opened_is_no_order() -> None:
    """Every fourth file, which no order tells: not much is fetched in vain."""
    reader = Reader(streaks(shown(100_000), most=64)).open(range(0, 4000, 3))
    assert len(reader.asked) < 40
    # Once all are opened, the next step counts in full again.
    before = len(reader.asked)
    reader.open(range(4000, 4200))
    assert len(reader.asked) - before > 150


def test_reopened_files_ask_for_nothing() -> None:
    reader = Reader(streaks(shown(100))).open([0, 0, 1, 1, 2])
    assert reader.asked == [3]
    assert Reader(reader.predictor).open([2, 2, 2]).asked == []


def test_refused_files_are_asked_for_again() -> None:
    predictor = streaks(shown(100))
    assert [predictor.opened(place) for place in (0, 1, 2, 3)] == [[], [], [3], [4, 5]]
    predictor.refused([5, 99])
    assert predictor.opened(4) == [5, 6, 7, 8]


def test_places_that_are_not_near_are_not_looked_for() -> None:
    asked = []

    def order(place: int, most: int) -> list[int]:
        asked.append(place)
        return shown(100)(place, most)

    predictor = Streaks([order], 64, lambda a, b: 0 < b - a < 10)
    Reader(predictor).open([50, 3, 90, 20])
    assert asked == []
    Reader(predictor).open([21])
    assert asked == [20, 21]


def test_memory_of_opened_files_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3mount.namespace.lookahead.OPENED_KEPT", 100)
    reader = Reader(streaks(shown(1000))).open(range(1000))
    assert len(reader.predictor._opened) == 100


def test_turned_off() -> None:
    assert Reader(streaks(shown(100), most=0), 0).open(range(100)).asked == []


# --- directories ----------------------------------------------------------------------------

# A place is a path of numbers in a tree in which every directory has `fan` subdirectories.


class Forest:
    """A tree of directories, its two orders, and the pages that walks through it earn."""

    def __init__(self, fan: int, depth: int) -> None:
        self.places: list[tuple[int, ...]] = []
        self._grow((), fan, depth)
        self.by_level = sorted(self.places, key=lambda place: (len(place), place))
        depth_first = {place: i for i, place in enumerate(self.places)}
        level = {place: i for i, place in enumerate(self.by_level)}
        self.walks: Walks[tuple[int, ...]] = Walks(
            [
                lambda place, most: self.places[depth_first[place] + 1 :][:most],
                lambda place, most: self.by_level[level[place] + 1 :][:most],
            ],
            lambda place, below: below[:-1] == place != below,
            lambda a, b: max(a[:i] for i in range(len(a) + 1) if a[:i] == b[:i]),
        )
        self.pages = 0

    def _grow(self, place: tuple[int, ...], fan: int, depth: int) -> None:
        self.places.append(place)
        for i in range(fan if depth else 0):
            self._grow((*place, i), fan, depth - 1)

    def visit(self, place: tuple[int, ...]) -> Walk[tuple[int, ...]] | None:
        """Visit, and spend all that is allowed."""
        walk = self.walks.visit(place)
        if walk is not None:
            assert 0 <= walk.appetite <= PAGES_MOST
            self.pages += walk.appetite
            walk.pages += walk.appetite
        return walk


def test_a_walk_earns_1_2_4_pages_and_then_one_a_step() -> None:
    forest = Forest(300, 1)
    allowances = []
    for place in forest.places[:80]:
        walk = forest.visit(place)
        allowances.append(walk.allowance if walk else 0)
    assert allowances[:8] == [0, 1, 2, 4, 8, 16, 32, 64 + 7]
    assert allowances[-1] == PAGES_MOST + 79
    assert forest.pages == allowances[-1]


@pytest.mark.parametrize("order", ["places", "by_level"])
@pytest.mark.parametrize("skip", [1, 2, 3])
def test_both_orders_also_with_skips_are_walks(order: str, skip: int) -> None:
    forest = Forest(12, 2)
    places = getattr(forest, order)
    for place in places[:3]:
        forest.visit(place)
    walk = None
    for place in places[3::skip]:
        walk = forest.visit(place)
        assert walk is not None
        assert walk.place == place
    assert walk is not None
    assert walk.steps > 40


def test_a_walk_that_turns_breadth_first() -> None:
    """The root's first subdirectory is next in both orders; what comes after it tells."""
    forest = Forest(20, 2)
    walk = [forest.visit(place) for place in forest.by_level[:40]][-1]
    assert walk is not None
    assert walk.order(walk.place, 3) == forest.by_level[40:43]


def test_several_threads_take_turns_within_reach() -> None:
    forest = Forest(200, 1)
    places = forest.places[:4]
    rest = forest.places[4:]
    for i in range(0, len(rest) - WALK_REACH, 4):
        places += random.Random(i).sample(rest[i : i + 4], 4)
    walks = [forest.visit(place) for place in places]
    assert sum(walk is not None for walk in walks) > len(walks) // 3
    assert forest.pages > 64


def test_several_walks_at_once() -> None:
    forest = Forest(100, 2)
    parts = [[place for place in forest.places if place[:1] == (i,)] for i in (10, 50, 90)]
    walks = [[forest.visit(place) for place in places] for places in zip(*parts, strict=True)][-1]
    assert len(set(map(id, walks))) == 3
    assert all(walk is not None and walk.steps == 100 for walk in walks)


def test_neighbours_alone_are_no_step_yet() -> None:
    forest = Forest(50, 1)
    forest.visit((7,))
    walk = forest.visit((8,))
    assert walk is not None
    assert walk.appetite == 0
    assert forest.walks.at((8,)) is None
    walk = forest.visit((9,))
    assert walk is not None
    assert walk.allowance == 1


def test_where_a_walk_is() -> None:
    forest = Forest(50, 1)
    for place in forest.places[:5]:
        forest.visit(place)
    here, before = forest.places[4], forest.places[3]
    walk = forest.walks.at(here)
    assert walk is not None
    assert walk is forest.walks.at(before)
    assert forest.walks.at(forest.places[2]) is None


def test_a_walk_knows_what_holds_all_it_visited() -> None:
    forest = Forest(5, 3)
    start = forest.places.index((2, 1))
    for place in forest.places[start : start + 6]:
        walk = forest.visit(place)
        if walk is not None:
            assert walk.top == (2, 1)
    walk = forest.visit((2, 2))
    assert walk is not None
    assert walk.top == (2,)


def test_a_walk_that_stands_still_ends() -> None:
    forest = Forest(100, 1)
    for place in forest.places[:5]:
        forest.visit(place)
    for place in forest.places[20 : 30 + 10 * PATIENCE : 10]:
        assert forest.visit(place) is None
    assert forest.walks.at(forest.places[4]) is None


def test_visiting_a_directory_again_is_no_step() -> None:
    forest = Forest(100, 1)
    walk = [forest.visit(place) for place in forest.places[:5]][-1]
    again = [forest.visit(forest.places[4]) for _ in range(20)]
    assert set(again) == {walk}
    assert walk is not None
    assert walk.steps == 4


@given(seed=seeds, shape=st.sampled_from([(500, 1), (22, 2), (8, 3), (2, 8)]))
@settings(max_examples=40)
def test_a_random_order_lists_next_to_nothing(seed: int, shape: tuple[int, int]) -> None:
    """A chance step is FIRST_REACH of all places, in two orders, for each of PATIENCE visits."""
    forest = Forest(*shape)
    places = forest.places[:]
    random.Random(seed).shuffle(places)
    for place in places:
        forest.visit(place)
    assert len(places) >= 500
    assert forest.pages <= len(places) // 20


@given(seed=seeds, steps=st.integers(0, 60))
def test_a_broken_walk_stops_within_one_step(seed: int, steps: int) -> None:
    forest = Forest(3000, 1)
    for place in forest.places[:steps]:
        forest.visit(place)
    pages = forest.pages
    for place in random.Random(seed).sample(forest.places[100::20], 100):
        assert forest.visit(place) is None
    assert forest.pages == pages


# --- names ------------------------------------------------------------------------------------


@given(steps=st.lists(st.integers(1, LOOKUP_REACH), min_size=LOOKUPS_PROOF, max_size=50))
def test_names_looked_up_in_order_prove_it(steps: list[int]) -> None:
    lookups: InOrder[str] = InOrder()
    rows = [5, *(5 + row for row in accumulate(steps))]
    told = [lookups.looked_up("d/", row) for row in rows]
    assert told == [at >= LOOKUPS_PROOF for at in range(len(rows))]
    assert not lookups.looked_up("e/", rows[-1] + 1)  # another directory
    assert not lookups.looked_up("d/", rows[-1] + 1)


@given(seed=seeds)
def test_names_looked_up_in_no_order_prove_nothing(seed: int) -> None:
    lookups: InOrder[str] = InOrder()
    rows = list(range(1000))
    random.Random(seed).shuffle(rows)
    assert not any(lookups.looked_up("d/", row) for row in rows)


@pytest.mark.parametrize("step", [0, -1, LOOKUP_REACH + 1])
def test_an_order_that_breaks_has_to_be_proven_anew(step: int) -> None:
    lookups: InOrder[str] = InOrder()
    assert [lookups.looked_up("d/", row) for row in range(LOOKUPS_PROOF + 1)][-1]
    row = LOOKUPS_PROOF + step
    told = [lookups.looked_up("d/", at) for at in range(row, row + LOOKUPS_PROOF + 1)]
    assert told == [False] * LOOKUPS_PROOF + [True]

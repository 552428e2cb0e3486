"""When an answer is late, and how many second requests that is worth."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount.s3.patience import (
    ALLOWANCE,
    ENOUGH,
    LEAST,
    LOST_FACTOR,
    LOST_FIRST,
    LOST_NEXT,
    MOST_SAVED,
    PROBE,
    SLOW_FACTOR,
    UNKNOWN,
    Patience,
)

shares = st.floats(0, 1)


@given(share=shares, calls=st.lists(st.booleans(), max_size=400))
def test_second_requests_stay_within_their_share(share: float, calls: list[bool]) -> None:
    patience = Patience(share)
    sent = taken = 0
    for is_request in calls:
        if is_request:
            patience.sent()
            sent += 1
        else:
            taken += patience.take()
        assert taken <= (ALLOWANCE if share else 0) + share * sent + 1e-9


def test_a_share_of_none_means_none() -> None:
    patience = Patience(0.0)
    for _ in range(1000):
        patience.sent()
    assert not patience.take()


def test_a_long_calm_saves_up_for_no_storm() -> None:
    patience = Patience(0.1)
    for _ in range(10_000):
        patience.sent()
    assert sum(patience.take() for _ in range(1000)) == MOST_SAVED


def test_before_enough_is_known_late_is_a_constant() -> None:
    patience = Patience(0.1)
    for _ in range(ENOUGH - 1):
        assert patience.late_after("get") == UNKNOWN
        patience.observe("get", 0.03)
    assert patience.late_after("get") == UNKNOWN
    patience.observe("get", 0.03)
    assert patience.late_after("get") == pytest.approx(0.06)
    assert patience.late_after("other kind") == UNKNOWN


@given(st.lists(st.floats(0, 10), min_size=64, max_size=300))
def test_late_is_later_than_nearly_all_recent_answers(latencies: list[float]) -> None:
    patience = Patience(0.1)
    for seconds in latencies:
        patience.observe("get", seconds)
    late = patience.late_after("get")
    assert late >= LEAST
    # It is computed anew at least every 16 answers: the latest ones may be missing.
    recent = latencies[-128 - 16 :]
    assert sum(seconds > late for seconds in recent) <= len(recent) * 0.05 + 16


def test_late_follows_what_is_usual() -> None:
    patience = Patience(0.1)
    for _ in range(200):
        patience.observe("get", 0.03)
    for _ in range(200):
        patience.observe("get", 0.3)
    assert patience.late_after("get") == pytest.approx(0.6)
    for _ in range(200):
        patience.observe("get", 0.001)
    assert patience.late_after("get") == LEAST


def test_a_tail_makes_patient() -> None:
    patience = Patience(0.1)
    for i in range(200):
        patience.observe("get", 1.0 if i % 10 == 0 else 0.1)
    assert patience.late_after("get") == pytest.approx(1.0 * SLOW_FACTOR)


def test_lost_is_a_second_then_two_unless_answers_take_long() -> None:
    patience = Patience(0.0)
    assert patience.lost_after("get", 5.0, 0) == LOST_FIRST
    assert patience.lost_after("get", 5.0, 1) == LOST_NEXT
    patience.observe("get", 0.03)
    assert patience.lost_after("get", 5.0, 0) == LOST_FIRST
    patience.heard = 5.5
    assert patience.lost_after("get", 5.0, 1) == LOST_FIRST, "others are answered"
    assert patience.lost_after("get", 5.5, 1) == LOST_NEXT
    for _ in range(20):
        patience.observe("get", 3.0)
    assert patience.lost_after("get", 5.0, 5) == pytest.approx(3.0 * LOST_FACTOR)


def test_one_at_a_time_is_sent_again_while_nothing_is_answered() -> None:
    patience = Patience(0.0)
    assert patience.repeat(0.0, 1.0)
    assert not patience.repeat(0.0, 1.0 + PROBE - 0.01)
    assert patience.repeat(0.0, 1.0 + PROBE)
    patience.heard = 2.5
    assert patience.repeat(0.0, 2.6)
    assert patience.repeat(0.1, 2.6)
    assert not patience.repeat(2.5, 2.9)

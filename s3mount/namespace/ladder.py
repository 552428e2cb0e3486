"""What name stands so many places further on in a directory: a guess, from the names before.

Names that programs make count in something: decimal numbers, dates, hex digests, base64. So
the characters of each position form a ladder, a name is a number in these digits, and names
are about as far apart in what follows as in what was seen. A guess that is off costs a part
of a page; it must only be a string that S3 can be asked to start from.

Pure: knows no intervals, clock or requests.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

_DIGITS = "0123456789"
_LOWER = "abcdefghijklmnopqrstuvwxyz"
_UPPER = _LOWER.upper()
# The least that holds all characters seen is taken.
_LADDERS = (
    _DIGITS,
    _DIGITS + "abcdef",
    _DIGITS + "ABCDEF",
    _LOWER,
    _UPPER,
    _DIGITS + _LOWER,
    _DIGITS + _UPPER,
    _DIGITS + _UPPER + _LOWER,
)
# Characters that may carry before the first that differed, and digits of precision behind.
CARRY = 12
PRECISION = 12


def name_ahead(names: Sequence[str], apart: int, places: int) -> str | None:
    """A string near which the name `places` behind the last of `names` should stand.

    `names` are some of a directory's, in order; from the first to the last it is `apart`
    places. None where the names tell nothing, or nothing seems to follow so far on.
    """
    first, last = names[0], names[-1]
    same = _common(first, last)
    begin = max(0, same - CARRY)
    ladders = _ladders(names, begin, min(len(last), same + PRECISION), same)
    start, end = _number(first, begin, ladders), _number(last, begin, ladders)
    if start >= end:
        return None
    tail = _digits(end + (end - start) * places // apart, (end - start) // apart, ladders)
    if tail is None:
        return None
    guess = last[:begin] + tail
    return guess if guess > last and guess.isprintable() else None


def _common(one: str, other: str) -> int:
    """How many characters both begin with."""
    pairs = zip(one, other, strict=False)
    return next((k for k, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _ladders(names: Sequence[str], begin: int, end: int, same: int) -> list[str]:
    """The characters of each position [begin, end), in order; from `same` on they differ."""
    seen = [{name[k] for name in names if len(name) > k} for k in range(begin, end)]
    ladders = [""] * len(seen)
    k = 0
    while k < len(seen):
        run = k  # positions of letters and digits count together: "9f" is hex in both places
        while run < len(seen) and all(c.isascii() and c.isalnum() for c in seen[run]):
            run += 1
        varied = set().union(*seen[max(k, same - begin) : run])
        counted = set(_least(varied)) if varied else set()
        for each in range(k, run):
            # What did not differ yet may be a digit of the same number, or the name of a kind.
            is_one = seen[each] <= counted
            ladders[each] = _least(varied if is_one else seen[each])
        if run < len(seen):
            ladders[run] = "".join(sorted(seen[run]))
        k = run + 1
    return ladders


def _least(seen: set[str]) -> str:
    return next(ladder for ladder in _LADDERS if seen <= set(ladder))


def _number(name: str, begin: int, ladders: Sequence[str]) -> int:
    """The name's characters from `begin` on, as digits on these ladders."""
    number, is_on = 0, True
    for k, ladder in enumerate(ladders, begin):
        digit = 0
        if is_on and k < len(name):
            digit = min(bisect_left(ladder, name[k]), len(ladder) - 1)
            is_on = ladder[digit] == name[k]
        else:
            is_on = False
        number = number * len(ladder) + digit
    return number


def _digits(number: int, step: int, ladders: Sequence[str]) -> str | None:
    """The characters of a number, as far as they matter beside `step`; None: too great."""
    characters: list[str] = []
    place, kept = 1, 0
    for ladder in reversed(ladders):
        number, digit = divmod(number, len(ladder))
        characters.append(ladder[digit])
        if place <= step:
            kept = len(characters) - 1  # everything behind this one is less than a place
        place *= len(ladder)
    return None if number else "".join(reversed(characters[kept:]))

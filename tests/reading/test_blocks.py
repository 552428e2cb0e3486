"""Sectors, blocks and runs against files of a few bytes, byte by byte."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from s3mount.reading.blocks import Geometry, Part, Piece


@st.composite
def files(draw: DrawFn) -> tuple[Geometry, int, int, int]:
    """A geometry, the size of a file, and a stretch [start, stop) within it."""
    sector = draw(st.integers(1, 4))
    geometry = Geometry(sector * draw(st.integers(1, 5)), sector)
    size = draw(st.integers(1, 70))
    start = draw(st.integers(0, size - 1))
    return geometry, size, start, draw(st.integers(start + 1, size))


def covered(geometry: Geometry, size: int, piece: Piece) -> set[int]:
    """The bytes of the file in the piece's sectors."""
    found = set()
    for sector in range(piece.mask.bit_length()):
        if piece.mask >> sector & 1:
            begin = piece.block * geometry.block_size + sector * geometry.sector_size
            found |= set(range(begin, min(begin + geometry.sector_size, size)))
    return found


@given(file=files())
def test_pieces_are_the_sectors_that_a_stretch_touches(
    file: tuple[Geometry, int, int, int],
) -> None:
    geometry, size, start, stop = file
    pieces = geometry.pieces(start, stop)
    bytes_covered = set().union(*(covered(geometry, size, piece) for piece in pieces))
    sector = geometry.sector_size
    first, last = start // sector * sector, min(-(-stop // sector) * sector, size)
    assert bytes_covered == set(range(first, last))
    assert all(before.block + 1 == behind.block for before, behind in pairwise(pieces))
    assert all(piece.mask for piece in pieces)


@given(file=files())
def test_a_whole_file_is_all_its_full_blocks(file: tuple[Geometry, int, int, int]) -> None:
    geometry, size, _, _ = file
    pieces = geometry.pieces(0, size)
    assert [piece.mask for piece in pieces] == [
        geometry.full_mask(piece.block, size) for piece in pieces
    ]
    assert sum(geometry.block_length(piece.block, size) for piece in pieces) == size


@given(
    file=files(),
    masks=st.lists(st.integers(0, 31), min_size=1, max_size=6),
    longest=st.integers(1, 60),
)
def test_runs_hold_each_sector_once_in_order_and_without_gaps(
    file: tuple[Geometry, int, int, int], masks: list[int], longest: int
) -> None:
    geometry, _, _, _ = file
    full = (1 << geometry.block_size // geometry.sector_size) - 1
    pieces = [Piece(index, mask & full) for index, mask in enumerate(masks)]
    size = len(masks) * geometry.block_size  # every block is whole
    runs = geometry.runs(pieces, longest)
    wanted: list[int] = []
    for piece in pieces:
        wanted += sorted(covered(geometry, size, piece))
    brought = [
        list(range(geometry.start(part), geometry.start(part) + length(geometry, part, size)))
        for run in runs
        for part in run
    ]
    assert [byte for stretch in brought for byte in stretch] == wanted
    for run in runs:
        ends = [geometry.start(part) + length(geometry, part, size) for part in run]
        assert [geometry.start(part) for part in run[1:]] == ends[:-1]
        total = sum(length(geometry, part, size) for part in run)
        assert total <= longest or len(run) == 1
    for run, behind in pairwise(runs):
        end = geometry.start(run[-1]) + length(geometry, run[-1], size)
        total = sum(length(geometry, part, size) for part in [*run, behind[0]])
        assert end < geometry.start(behind[0]) or total > longest, "two runs could be one"


def length(geometry: Geometry, part: Part, size: int) -> int:
    """Bytes in the part."""
    first, stop = geometry.span(part, size)
    return stop - first


@given(file=files())
def test_a_part_spans_its_sectors_up_to_the_end_of_the_file(
    file: tuple[Geometry, int, int, int],
) -> None:
    geometry, size, start, stop = file
    for run in geometry.runs(geometry.pieces(start, stop), 1000):
        for part in run:
            first, last = geometry.span(part, size)
            base = part.block * geometry.block_size
            assert geometry.start(part) == base + first
            assert set(range(base + first, base + last)) == covered(
                geometry, size, Piece(part.block, part.mask)
            )


def test_a_block_is_a_whole_number_of_sectors() -> None:
    with pytest.raises(ValueError, match="10 is no multiple of 4"):
        Geometry(10, 4)

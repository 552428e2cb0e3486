"""Offsets <-> sectors <-> blocks <-> runs.

A file is cut into blocks of `block_size` bytes, and each block into sectors. A
block is what memory and the cache hold; a sector is the least that is fetched, so
that a random read of 4 KiB does not fetch a mebibyte. Which sectors of a block are
meant is a bit mask: bit i is sector i.

A run is a row of adjacent sectors, possibly across blocks: one ranged GET.

Pure: knows no buffers, no requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

SECTOR_SIZE = 128 * 1024


class Part(NamedTuple):
    """The sectors [first, stop) of the block number `block`."""

    block: int
    first: int
    stop: int

    @property
    def mask(self) -> int:
        """The part's sectors as a bit mask."""
        return (1 << self.stop) - (1 << self.first)


class Piece(NamedTuple):
    """Some sectors, adjacent or not, of the block number `block`."""

    block: int
    mask: int


@dataclass(frozen=True, slots=True)
class Geometry:
    """How files are cut. `block_size` is a multiple of `sector_size`."""

    block_size: int
    sector_size: int = SECTOR_SIZE

    def __post_init__(self) -> None:
        if self.block_size % self.sector_size:
            raise ValueError(f"{self.block_size} is no multiple of {self.sector_size}")

    def block_length(self, index: int, size: int) -> int:
        """Bytes in the block `index` of a file of `size` bytes: the last one may be short."""
        return min(self.block_size, size - index * self.block_size)

    def full_mask(self, index: int, size: int) -> int:
        """Every sector that the block `index` has."""
        sectors = -(-self.block_length(index, size) // self.sector_size)
        return (1 << sectors) - 1

    def pieces(self, start: int, stop: int) -> list[Piece]:
        """The sectors that cover the bytes [start, stop), a piece for each block."""
        pieces = []
        for index in range(start // self.block_size, -(-stop // self.block_size)):
            base = index * self.block_size
            first = max(0, start - base) // self.sector_size
            last = -(-min(self.block_size, stop - base) // self.sector_size)
            pieces.append(Piece(index, (1 << last) - (1 << first)))
        return pieces

    def span(self, part: Part, size: int) -> tuple[int, int]:
        """The part's bytes [start, stop) within its block, in a file of `size` bytes."""
        length = self.block_length(part.block, size)
        return part.first * self.sector_size, min(part.stop * self.sector_size, length)

    def start(self, part: Part) -> int:
        """The offset in the file at which the part starts."""
        return part.block * self.block_size + part.first * self.sector_size

    def runs(self, pieces: Iterable[Piece], longest: int) -> list[list[Part]]:
        """The pieces as rows of adjacent parts, in order, each at most `longest` bytes.

        A row holds at least one part, even when that is longer.
        """
        rows: list[list[Part]] = []
        length = 0
        for part in self._parts(pieces):
            size = (part.stop - part.first) * self.sector_size
            if rows and self._adjoin(rows[-1][-1], part) and length + size <= longest:
                rows[-1].append(part)
                length += size
            else:
                rows.append([part])
                length = size
        return rows

    def _adjoin(self, left: Part, right: Part) -> bool:
        per_block = self.block_size // self.sector_size
        return left.block * per_block + left.stop == right.block * per_block + right.first

    @staticmethod
    def _parts(pieces: Iterable[Piece]) -> Iterator[Part]:
        for block, mask in pieces:
            rest = mask
            while rest:
                first = (rest & -rest).bit_length() - 1
                zeros = ~(rest >> first)  # its lowest one is the end of the row of ones
                stop = first + (zeros & -zeros).bit_length() - 1
                part = Part(block, first, stop)
                yield part
                rest &= ~part.mask

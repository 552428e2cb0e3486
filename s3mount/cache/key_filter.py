"""Which keys are surely not cached: a Bloom filter over key digests.

Every cold small file asks the cache first; with this it need not ask a thread.

Pure: knows no trio, clock, thread or file.
"""

from __future__ import annotations

# Four bits a key, in at least 12 a key: at most 0.7 % of the absent keys look present.
_BITS_PER_KEY = 12


class KeyFilter:
    """A set of key digests that may also hold others: "not in" is sure, "in" is not.

    A digest is a good hash already, so its four 32-bit words are the four positions.
    A million keys take 2 MiB; adding takes 0.5 us a key, asking the same.
    """

    def __init__(self, capacity: int) -> None:
        """`capacity`: how many keys it takes before it says "in" too often."""
        # A power of two, so that a position is a word and a mask.
        bits = 1 << max(16, (capacity * _BITS_PER_KEY - 1).bit_length())
        self.capacity = capacity
        self._mask = bits - 1
        self._bits = bytearray(bits // 8)

    def add_all(self, digests: bytes | bytearray) -> None:
        """Add digests, which are joined one after the other."""
        bits, mask = self._bits, self._mask
        for word in memoryview(digests).cast("I"):
            position = word & mask
            bits[position >> 3] |= 1 << (position & 7)

    def __contains__(self, digest: bytes) -> bool:
        bits, mask = self._bits, self._mask
        for word in memoryview(digest).cast("I"):
            position = word & mask
            if not bits[position >> 3] & 1 << (position & 7):
                return False
        return True


class KnownKeys:
    """What is known of which keys there are: at first nothing, later a filter of all."""

    def __init__(self) -> None:
        self._filter: KeyFilter | None = None
        self._added = bytearray()  # digests that were added while there was no filter

    @property
    def capacity(self) -> int:
        """Of the filter; 0 when there is none yet."""
        return self._filter.capacity if self._filter else 0

    def add(self, digests: bytes) -> None:
        """Keys that there are from now on, as digests joined one after the other."""
        if self._filter is None:
            self._added += digests
        else:
            self._filter.add_all(digests)

    def learn(self, keys: KeyFilter) -> None:
        """Use a filter of all keys that there were, instead of what was known."""
        keys.add_all(self._added)
        self._filter, self._added = keys, bytearray()

    def lacks(self, digest: bytes) -> bool:
        """True when there is surely no such key; False when there may be."""
        return self._filter is not None and digest not in self._filter

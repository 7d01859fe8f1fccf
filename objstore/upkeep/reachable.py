"""Which objects can be reached: sets of oids in little memory, and the marking that fills one.

Packing and checking ask of every object of a store whether anything leads to it. Both keep the answer in an
`OidSet`, one bit for each oid, and find it with a `Marker`, which follows references without recursion: a
chain of a million objects takes no more stack than one object, and a pending object takes eight bytes.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator

from objstore.ids import oid_numbers

CHUNK_BITS = 16
"""A chunk holds the bits of 65,536 neighbouring oids, in 8 KiB."""
_CHUNK_BYTES = 1 << (CHUNK_BITS - 3)
_LOW_MASK = (1 << CHUNK_BITS) - 1
_ONE = ord("1")
_POSITIONS = tuple(tuple(bit for bit in range(8) if byte >> bit & 1) for byte in range(256))


class OidSet:
    """A set of oids, given as numbers. Where oids are neighbours, as a store hands them out, one takes a bit.

    Changed by one thread at a time; any may ask for what is in it meanwhile.
    """

    __slots__ = ("_chunks",)

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        self._chunks: dict[int, bytearray] = {}
        for number in numbers:
            self.add(number)

    def add(self, number: int) -> bool:
        """Put an oid in; whether it was not there before."""
        key = number >> CHUNK_BITS
        chunk = self._chunks.get(key)
        if chunk is None:
            chunk = self._chunks[key] = bytearray(_CHUNK_BYTES)
        at = (number & _LOW_MASK) >> 3
        bit = 1 << (number & 7)
        if chunk[at] & bit:
            return False
        chunk[at] |= bit
        return True

    def add_lows(self, key: int, lows: Iterable[int]) -> None:
        """Put many oids of a chunk in, given by what they have beside the chunk's `key`."""
        digits = bytearray(b"0") * (_LOW_MASK + 1)
        for low in lows:
            digits[_LOW_MASK - low] = _ONE
        bits = int(digits, 2) | int.from_bytes(self._chunks.get(key, b""), "little")
        if bits:
            self._chunks[key] = bytearray(bits.to_bytes(_CHUNK_BYTES, "little"))

    def lows(self, key: int) -> set[int]:
        """The oids of a chunk, without its key."""
        chunk = self._chunks.get(key, b"")
        return {8 * at + bit for at, byte in enumerate(chunk) if byte for bit in _POSITIONS[byte]}

    def __contains__(self, number: int) -> bool:
        chunk = self._chunks.get(number >> CHUNK_BITS)
        return chunk is not None and bool(chunk[(number & _LOW_MASK) >> 3] >> (number & 7) & 1)

    def __len__(self) -> int:
        return sum(int.from_bytes(chunk).bit_count() for chunk in self._chunks.values())

    def __iter__(self) -> Iterator[int]:
        """The numbers in ascending order."""
        for key in sorted(self._chunks):
            base = key << CHUNK_BITS
            for at, byte in enumerate(self._chunks[key]):
                if byte:
                    for bit in _POSITIONS[byte]:
                        yield base + 8 * at + bit

    def __or__(self, other: OidSet) -> OidSet:
        return self._combined(other, self._chunks.keys() | other._chunks.keys(), int.__or__)

    def __and__(self, other: OidSet) -> OidSet:
        return self._combined(other, self._chunks.keys() & other._chunks.keys(), int.__and__)

    def __sub__(self, other: OidSet) -> OidSet:
        return self._combined(other, self._chunks.keys(), lambda mine, others: mine & ~others)

    def _combined(self, other: OidSet, keys: Iterable[int], operation: Callable[[int, int], int]) -> OidSet:
        found = OidSet()
        for key in keys:
            mine, others = (int.from_bytes(chunks.get(key, b"")) for chunks in (self._chunks, other._chunks))
            bits = operation(mine, others)
            if bits:
                found._chunks[key] = bytearray(bits.to_bytes(_CHUNK_BYTES))
        return found


class Marker:
    """Finds what can be reached from some roots, by a function that tells an object's references.

    `references_of` takes an oid's number and gives packed oids; what it raises ends the marking. After
    `run`, `live` holds the roots and all that can be reached from them.
    """

    def __init__(self, references_of: Callable[[int], bytes]) -> None:
        self.live = OidSet()
        self.visits = 0
        """How many times references were asked for."""
        self._references_of = references_of
        self._work = array("Q")

    def add(self, number: int) -> None:
        """Make an object a root."""
        if self.live.add(number):
            self._work.append(number)

    def revisit(self, number: int) -> None:
        """Make an object a root, and ask for its references again though it was marked: they have changed."""
        self.live.add(number)
        self._work.append(number)

    def run(self, limit: int | None = None) -> bool:
        """Follow references, asking at most `limit` objects for theirs; whether nothing is left to follow."""
        work, references_of, add = self._work, self._references_of, self.live.add
        end = None if limit is None else self.visits + limit
        while work:
            if self.visits == end:
                return False
            self.visits += 1
            for number in oid_numbers(references_of(work.pop())):
                if add(number):
                    work.append(number)
        return True


class BucketMarker:
    """The same, of objects that are asked for many at a time, by buckets, but for those that have changed.

    `targets_of` takes a bucket and the numbers of some of its objects, and gives the numbers of all that they
    refer to. `references_of`, as of a `Marker`, is asked for what is to be visited by `revisit`.
    """

    def __init__(
        self, targets_of: Callable[[int, list[int]], Iterable[int]], references_of: Callable[[int], bytes]
    ) -> None:
        self.live = OidSet()
        self.visits = 0
        self._targets_of = targets_of
        self._references_of = references_of
        self._changed = array("Q")
        self._pending: dict[int, array[int]] = {}

    def add(self, number: int) -> None:
        """Make an object a root."""
        self._follow((number,))

    def revisit(self, number: int) -> None:
        """Make an object a root, and ask for its references by themselves, whatever its bucket told of it."""
        self.live.add(number)
        self._changed.append(number)

    def run(self, limit: int | None = None) -> bool:
        """Follow references, asking at most `limit` objects for theirs; whether nothing is left to follow."""
        end = None if limit is None else self.visits + limit
        while self._changed or self._pending:
            if self.visits == end:
                return False
            if self._changed:
                self.visits += 1
                self._follow(oid_numbers(self._references_of(self._changed.pop())))
                continue
            bucket, numbers = self._pending.popitem()
            if end is not None and len(numbers) > end - self.visits:
                self._pending[bucket] = numbers[: self.visits - end]
                numbers = numbers[self.visits - end :]
            self.visits += len(numbers)
            self._follow(self._targets_of(bucket, numbers.tolist()))
        return True

    def _follow(self, numbers: Iterable[int]) -> None:
        add, pending = self.live.add, self._pending
        for number in numbers:
            if add(number):
                key = number >> CHUNK_BITS
                if key in pending:
                    pending[key].append(number)
                else:
                    pending[key] = array("Q", (number,))

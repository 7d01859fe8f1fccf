"""What a flush writes, sorted: the entries of some transactions, by bucket, and within a bucket by oid and tid.

Records are not looked into: only their oids, tids and sizes are sorted, and slices of the journal's files are
put in that order.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Callable, Iterator

from objstore.engine.buckets import DETAILS
from objstore.formats.recordruns import RecordRun
from objstore.formats.segments import BUCKET_BITS, LOW_MASK, Stretch
from objstore.formats.transactions import encode_details
from objstore.ids import number
from objstore.revisions import Transaction


class Gathered:
    """The entries of transactions, which are added in the order of their tids."""

    def __init__(self) -> None:
        self._details: list[bytes] = []
        self._details_tids: list[int] = []
        self._oids: list[int] = []
        self._tids: list[int] = []
        self._sizes: list[int] = []
        self._heads: list[bytes] = []
        self._rests: list[bytes | memoryview] = []
        self._releases: list[Callable[[], None]] = []

    def add_details(self, transaction: Transaction) -> None:
        """Add the details of a transaction."""
        self._details.append(encode_details(transaction))
        self._details_tids.append(number(transaction.tid))

    def add(self, run: RecordRun) -> None:
        """Add the records of a transaction. Raises CorruptionError where one stands in another's place."""
        heads, rests = run.parts()
        self._heads += heads
        self._rests += rests
        if run.release is not None:
            self._releases.append(run.release)
        self._sizes += run.sizes
        self._oids += struct.unpack(f">{len(run)}Q", b"".join(run.oids))
        self._tids += [number(run.tid)] * len(run)

    def by_bucket(self) -> Iterator[tuple[int, Stretch]]:
        """Each bucket, with what is to be written there; the transactions' details first."""
        if self._details:
            tids, details = self._details_tids, self._details
            yield DETAILS, Stretch(bytes(len(tids)), tids, list(map(len, details)), details)
        # A stable sort, so an object's revisions stay in the order of their tids.
        order = sorted(range(len(self._oids)), key=self._oids.__getitem__)
        oids = [self._oids[at] for at in order]
        start = 0
        while start < len(oids):
            bucket = oids[start] >> BUCKET_BITS
            end = bisect_left(oids, (bucket + 1) << BUCKET_BITS, start)
            yield bucket, self._stretch(oids[start:end], order[start:end])
            start = end

    def _stretch(self, oids: list[int], order: list[int]) -> Stretch:
        parts: list[bytes | memoryview] = [b""] * (2 * len(order))
        parts[::2] = [self._heads[at] for at in order]
        parts[1::2] = [self._rests[at] for at in order]
        lows = [oid & LOW_MASK for oid in oids]
        tids, sizes = [self._tids[at] for at in order], [self._sizes[at] for at in order]
        return Stretch(lows, tids, sizes, parts, self._release if self._releases else None)

    def _release(self) -> None:
        for release in self._releases:
            release()

"""Comparing two stores, transaction by transaction and record by record: the first differences, and how many there
were compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256

from objstore.compat.adopted.records import readable
from objstore.compat.moving.blobs import is_blob
from objstore.compat.moving.sources import MovedTransaction, Source
from objstore.contracts import Progress
from objstore.ids import NO_TID, Oid, Tid
from objstore.revisions import Details
from objstore.upkeep.selection import UNKNOWN

MOST = 10
"""So many differences are told, then comparing ends."""
STEP = 100


@dataclass(frozen=True, slots=True)
class Difference:
    """What is not the same. `oid` is None where the transaction is meant."""

    tid: Tid
    oid: Oid | None
    what: str

    def __str__(self) -> str:
        place = f"transaction {self.tid.hex()}"
        return (
            f"{place}, object {self.oid.hex()}: {self.what}" if self.oid is not None else f"{place}: {self.what}"
        )


class Verification:
    """Compares what a target has with its source, up to a tid."""

    def __init__(
        self, source: Source, target: Source, upto: Tid, progress: Progress, packed: Callable[[], Tid]
    ) -> None:
        """`packed` tells up to where the source may have packed away what the target has by now. What it has still
        is compared.
        """
        self._source = source
        self._target = target
        self._upto = upto
        self._packed = packed
        self._progress = progress
        self._found: list[Difference] = []
        self.compared = 0
        """How many revisions were the same, or not."""
        self.blobs = 0
        """How many of them were those of blobs, of which every byte was read."""

    def history(self) -> list[Difference]:
        """Compare all transactions. The first differences."""
        self._compare(self._source.transactions(NO_TID, self._upto), self._target.transactions(NO_TID, self._upto))
        return self._found

    def current(self) -> list[Difference]:
        """Compare what is current: no deletions, which need not be kept, nor what transactions say."""
        self._compare(
            self._source.current(NO_TID, self._upto), self._target.current(NO_TID, self._upto), whole=False
        )
        return self._found

    def _compare(
        self, source: Iterator[MovedTransaction], target: Iterator[MovedTransaction], *, whole: bool = True
    ) -> None:
        """Walk along both, in the order of their tids. `whole`: all there is, with what transactions say."""
        done = 0
        theirs, ours = next(source, None), next(target, None)
        while (theirs or ours) and len(self._found) < MOST:
            if theirs and (not ours or theirs.tid < ours.tid):
                if any(whole or record.data is not None for record in theirs.records):
                    self._tell(theirs.tid, None, "it is missing in the target")
                theirs = next(source, None)
            elif ours and (not theirs or ours.tid < theirs.tid):
                self._surplus(ours, whole=whole)
                ours = next(target, None)
            elif theirs and ours:
                if whole and theirs.details != UNKNOWN and _normal(theirs.details) != _normal(ours.details):
                    self._tell(ours.tid, None, "what it says of itself differs")
                self._records(theirs, ours, whole=whole)
                theirs, ours = next(source, None), next(target, None)
            done += 1
            if done % STEP == 0:
                self._progress("comparing transactions", done, None)

    def _records(self, theirs: MovedTransaction, ours: MovedTransaction, *, whole: bool) -> None:
        """Compare what a transaction wrote. A digest of each record is kept meanwhile, not the record."""
        expected = {
            record.oid: _digest(record.data) for record in theirs.records if whole or record.data is not None
        }
        tid = ours.tid
        for record in ours.records:
            if not whole and record.data is None:
                continue
            self.compared += 1
            if record.oid not in expected:
                if tid > self._packed() and (whole or not self._superseded(record.oid)):
                    self._tell(tid, record.oid, "it is in the target only")
            elif expected.pop(record.oid) != _digest(record.data):
                self._tell(tid, record.oid, "the record differs")
            elif is_blob(record.data) and self._blobs_differ(record.oid, tid):
                self._tell(tid, record.oid, "the data of the blob differ")
        for oid in expected:
            if whole or not self._is_newer(oid):
                self._tell(tid, oid, "it is missing in the target")

    def _blobs_differ(self, oid: Oid, tid: Tid) -> bool:
        self.blobs += 1
        there = self._source.blob_digest(oid, tid)
        return there != self._target.blob_digest(oid, tid) and not (there is None and tid <= self._packed())

    def _surplus(self, ours: MovedTransaction, *, whole: bool) -> None:
        """A transaction of the target alone: what is current there may be superseded in the source since."""
        if ours.tid <= self._packed():
            return
        if whole:
            self._tell(ours.tid, None, "it is in the target only")
            return
        for record in ours.records:
            if record.data is not None and not self._superseded(record.oid):
                self._tell(ours.tid, record.oid, "it is in the target only")

    def _superseded(self, oid: Oid) -> bool:
        return self._source.current_tid(oid) > self._upto

    def _is_newer(self, oid: Oid) -> bool:
        return self._target.current_tid(oid) > self._upto

    def _tell(self, tid: Tid, oid: Oid | None, what: str) -> None:
        if len(self._found) < MOST:
            self._found.append(Difference(tid, oid, what))


def _digest(data: bytes | None) -> bytes | None:
    return None if data is None else sha256(data).digest()


def _normal(details: Details) -> Details:
    """Details such that those are equal that say the same: a pickle and JSON may."""
    shown = readable(details)
    return shown._replace(extension=b"") if shown.extension in (b"", b"{}") else shown

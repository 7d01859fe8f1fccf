"""Copying a store into a new one, of the same or of another history mode and format.

Records are copied as they are: oids, tids, previous links, references, what was deleted and what an undo brought
back. Nothing is unpickled. From Full to Full all transactions come along with their details; else the current
revisions do, under their tids, and in a Full copy history begins with them.

The order: 1. a view fixes the tid that is copied; 2. all headers are read, so that the room which the copy takes
is known, and what cannot be read ends it before anything is written; 3. the copy is begun (`engine.importing` has
the steps, and what a crash leaves); 4. transactions are read and applied, oldest first, some megabytes at a time;
5. if asked for, the copy is read again and compared, record by record; 6. it becomes a store.

Others may read and commit to the source meanwhile; what they commit is not copied.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import RawIOBase
from time import perf_counter
from typing import overload

from objstore.contracts import Filesystem, Format, History, Progress, View
from objstore.engine.failures import storage_error
from objstore.engine.importing import Import, begin_import, require_place
from objstore.engine.store import DirectoryStore
from objstore.errors import BlobMissingError, CorruptionError, POSKeyError, StorageFullError, UsageError
from objstore.ids import Oid, Tid
from objstore.revisions import BlobFacts, Revision, Transaction
from objstore.upkeep.selection import BLOCK, STEP, CurrentState, Selection, Survey, WholeHistory, record_size
from objstore.upkeep.sorting import TidSorter

INDEX_ENTRY = 32
"""Bytes that a segment takes for each of its records, about."""

Batch = list[tuple[Transaction, Sequence[Revision]]]


@dataclass(frozen=True, slots=True)
class CopyLimits:
    """How much a copy holds in memory: records of `batch` bytes, and `run` pairs of ids to be sorted."""

    batch: int = 16 * 2**20
    run: int = 500_000


DEFAULT_LIMITS = CopyLimits()


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What a copy did. `bytes` are those of the records; `transactions` those that wrote what was copied."""

    path: str
    history: History
    format: Format
    upto: Tid
    """The newest transaction of the source that is in the copy."""
    transactions: int
    revisions: int
    objects: int
    bytes: int
    verified: bool
    seconds: float
    blobs: int = 0
    blob_bytes: int = 0


def copy(
    source: DirectoryStore,
    dest: str,
    filesystem: Filesystem,
    *,
    history: History | None = None,
    format: Format | None = None,
    verify: bool = False,
    progress: Progress | None = None,
    limits: CopyLimits = DEFAULT_LIMITS,
) -> CopyReport:
    """Copy a store into the directory `dest` (absolute) of `filesystem`, which has nothing in it yet.

    History mode and format are the source's where none is given. Where it fails, `dest` is no store. Raises
    OpenError and its kin, UsageError, CorruptionError (also where `verify` finds a difference), StorageFullError,
    StorageError, SnapshotTooOldError where others write more than `pin_limit` meanwhile.
    """
    if dest == source.name or dest.startswith(f"{source.name}/"):
        raise UsageError(f"{dest} lies within the store that is to be copied; name another place")
    require_place(dest, filesystem)
    with source.unpacked(), contextlib.closing(source.view()) as view, TidSorter(limits.run) as sorter:
        kinds = (history or source.history_mode, format or source.settings.format)
        job = _Copy(source, view, sorter, *kinds, progress or _silent, limits)
        try:
            return job.run(dest, filesystem, verify=verify)
        except OSError as error:
            raise storage_error(error.filename or dest, error) from error


def _silent(phase: str, done: int, total: int | None) -> None:
    """Tell nobody."""


class _Copy:
    """One run."""

    def __init__(
        self,
        source: DirectoryStore,
        view: View,
        sorter: TidSorter,
        history: History,
        format: Format,
        progress: Progress,
        limits: CopyLimits,
    ) -> None:
        self._source = source
        self._view = view
        self._upto = view.snapshot
        self._history = history
        self._format = format
        self._progress = progress
        self._limits = limits
        self._whole = source.history_mode is History.FULL and history is History.FULL
        self._selection: Selection = (
            WholeHistory(source, self._upto) if self._whole else CurrentState(source, self._upto, sorter)
        )
        self._survey = Survey()
        self._copied = 0
        self._blobs: list[tuple[Oid, Tid, BlobFacts]] = []  # of the transactions that are to be applied next

    def run(self, dest: str, filesystem: Filesystem, *, verify: bool) -> CopyReport:
        start = perf_counter()
        self._survey = survey = self._selection.survey(self._progress)
        # After what it covers was committed, and before anything else is: so no oid of the copy is below it.
        unreserved = self._source.unreserved_oid()
        self._require_room(dest, filesystem)
        target = begin_import(dest, self._history, self._format, filesystem)
        try:
            try:
                self._fill(target)
                if verify:
                    self._verify(target, dest)
            except CorruptionError:
                self._require_snapshot()  # else something is missed that is no longer there
                raise
            self._require_snapshot()
            begins_here = self._history is History.FULL and not self._whole
            target.finish(self._upto, unreserved, self._upto if begins_here else self._source.packed_upto())
        except BaseException:
            target.abandon()
            raise
        return CopyReport(
            path=dest,
            history=self._history,
            format=self._format,
            upto=self._upto,
            transactions=survey.transactions,
            revisions=survey.revisions,
            objects=survey.objects,
            bytes=survey.bytes,
            verified=verify,
            seconds=perf_counter() - start,
            blobs=survey.blobs,
            blob_bytes=survey.blob_bytes,
        )

    def _require_room(self, dest: str, filesystem: Filesystem) -> None:
        survey = self._survey
        details = survey.details if self._history is History.FULL else 0
        needed = survey.bytes + INDEX_ENTRY * survey.revisions + details
        if self._format is not Format.SEGMENTED:
            pointers = survey.objects + survey.transactions if self._history is History.FULL else 0
            needed = BLOCK * (survey.blocks + pointers)
        needed += survey.blob_bytes
        free = filesystem.free_bytes(dest.rpartition("/")[0] or "/")
        if free < needed:
            raise StorageFullError(dest, f"the copy takes about {needed:,} bytes, and there are {free:,} left")

    def _require_snapshot(self) -> None:
        """Raises SnapshotTooOldError where what was read may have been newer than what is copied."""
        with contextlib.suppress(POSKeyError):
            self._view.load(Oid(bytes(8)))

    # --- filling ---

    def _fill(self, target: Import) -> None:
        batch: Batch = []
        size = 0
        for transaction in self._selection.transactions():
            revisions, more = self._load(transaction)
            if batch and size + more > self._limits.batch:
                self._take_blobs(target)
                target.apply(batch)
                batch, size = [], 0
            batch.append((transaction, revisions))
            size += more
        self._take_blobs(target)
        target.apply(batch)
        if self._copied != self._survey.revisions:
            raise CorruptionError(
                self._source.name,
                f"there are {self._survey.revisions:,} revisions, but transactions lead to {self._copied:,}; "
                "`objstore check` tells more",
            )

    def _take_blobs(self, target: Import) -> None:
        """Copy the blobs of what was loaded, each when it is its turn."""
        target.take_blobs((oid, tid, facts, self._open_blob(oid, tid)) for oid, tid, facts in self._blobs)
        self._blobs.clear()

    def _open_blob(self, oid: Oid, tid: Tid) -> RawIOBase:
        try:
            return self._source.blobs.open_committed(oid, tid)
        except BlobMissingError as error:
            raise CorruptionError(self._source.name, "the data of a blob are missing", oid=oid, tid=tid) from error

    def _load(self, transaction: Transaction) -> tuple[Sequence[Revision], int]:
        """What a transaction wrote, and bytes of it; where that is much, it is read when it is looked at."""
        loaded: list[Revision] = []
        there: list[Oid] = []
        size = 0
        for oid in transaction.oids:
            revision = self._selection.revision(oid, transaction.tid)
            if revision is None:
                continue
            self._advance()
            there.append(oid)
            if revision.blob is not None:
                self._blobs.append((oid, transaction.tid, revision.blob))
            size += record_size(revision)
            if size <= self._limits.batch:
                loaded.append(revision)
            else:
                loaded.clear()
        if size <= self._limits.batch:
            return loaded, size
        return LazyRevisions(there, lambda oid: self._selection.revision(oid, transaction.tid)), size

    def _advance(self) -> None:
        if self._copied % STEP == 0:
            self._progress("copying", self._copied, self._survey.revisions)
        self._copied += 1

    # --- verifying ---

    def _verify(self, target: Import, dest: str) -> None:
        """Compare a copy with what it was made from. Raises CorruptionError."""
        home = target.written()
        survey, compared = self._survey, 0
        for transaction in self._selection.transactions():
            tid = transaction.tid
            if self._history is History.FULL and home.transaction(tid) != transaction:
                raise CorruptionError(dest, "the details of a transaction differ", tid=tid)
            for oid in transaction.oids:
                revision = self._selection.revision(oid, tid)
                if revision is None:
                    continue
                if compared % STEP == 0:
                    self._progress("verifying", compared, survey.revisions)
                compared += 1
                if home.revision(oid, tid) != revision:
                    raise CorruptionError(dest, "a record differs from what was copied", oid=oid, tid=tid)
                if revision.blob is not None and target.blob_facts(oid, tid) != revision.blob:
                    raise CorruptionError(dest, "a blob differs from what was copied", oid=oid, tid=tid)
        objects = revisions = 0
        for oid in home.oids():
            objects += 1
            revisions += sum(1 for _ in home.summaries(oid))
        transactions = sum(1 for _ in home.transactions(self._upto)) if self._history is History.FULL else None
        expected = (survey.objects, survey.revisions, survey.transactions if transactions is not None else None)
        if (objects, revisions, transactions) != expected or compared != survey.revisions:
            raise CorruptionError(dest, "the copy has more, or less, than what was copied")
        for finding in home.findings():
            raise CorruptionError(finding.path, finding.message, oid=finding.oid, tid=finding.tid)


class LazyRevisions(Sequence[Revision]):
    """Revisions that are read one by one, whenever they are looked at."""

    def __init__(self, oids: list[Oid], load: Callable[[Oid], Revision | None]) -> None:
        self._oids = oids
        self._load = load

    def __len__(self) -> int:
        return len(self._oids)

    @overload
    def __getitem__(self, at: int) -> Revision: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[Revision]: ...

    def __getitem__(self, at: int | slice) -> Revision | Sequence[Revision]:
        if isinstance(at, slice):
            return LazyRevisions(self._oids[at], self._load)
        revision = self._load(self._oids[at])
        if revision is None:
            raise KeyError(self._oids[at])
        return revision

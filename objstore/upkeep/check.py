"""Checking a store: everything that is wrong with it is told, and nothing is changed.

Three parts, each in a module of its own, in this order: the files around the home, with the journal
(`surroundings`); the files of the home, which the home itself reads (`Home.findings`); and what leads from
object to object (`connections`). All of it is read once, in bounded memory.

The store may be in use meanwhile, by this process or by others. What is only on its way (files being written,
transactions being flushed) is not told: a finding counts if it is still so when it is looked at again. A pack that
runs at the same time may make a check tell of objects that the pack removes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from objstore.contracts import Finding, Progress
from objstore.engine.store import DirectoryStore
from objstore.errors import CorruptionError
from objstore.formats.layouts import (
    TEMPORARY,
    RevisionName,
    parse_home_name,
    parse_segment_name,
)
from objstore.ids import NO_TID, Oid, Tid, number
from objstore.upkeep.blobs import BlobCheck
from objstore.upkeep.connections import Connections
from objstore.upkeep.reachable import OidSet
from objstore.upkeep.surroundings import Surroundings
from objstore.upkeep.use import Use

ROUNDS = 3
"""How many flushes a file must outlast before it counts as left over."""

KINDS = {
    "aside": "recovery moved this to lost+found; look at it, then remove it",
    "blob": "the data of a blob are missing, or are not what was written",
    "chain": "transactions are missing from the journal although they had been acknowledged",
    "checksum": "the bytes are not what was written",
    "dangling": "an object refers to one that does not exist",
    "details": "revisions are there, but not the details of the transaction that wrote them",
    "foreign": "the file does not belong to the store; it is ignored",
    "incomplete": "references could not be followed everywhere, because of damage told before",
    "journal": "a committed transaction in the journal cannot be read",
    "leftover": "an interrupted process left this; it has no meaning, and the store removes it by and by",
    "mark": "a watermark contradicts what is stored",
    "misplaced": "a file of the store stands in the wrong directory, where it is not found",
    "name": "a file holds something else than its name says",
    "pointer": "the file that says which revision is current, and the revisions, do not fit together",
    "record": "a record's pickle cannot be followed",
    "unreachable": "nothing leads to the object; a pack removes it",
    "unreadable": "the system does not let the file be read",
}
"""The kinds of findings, each with what it means."""


def check(store: DirectoryStore, progress: Progress | None = None, *, blobs: bool = False) -> Iterator[Finding]:
    """Tell what is wrong with a store, finding by finding, as they are met.

    The store may be open for reading or writing, or `tolerant`. Of blobs the length is looked at; with `blobs` all
    of each is read. Never writes. Raises ClosedError, and OSError where the system refuses what has nothing to do
    with one file.
    """
    use = Use(store)
    return _Check(store, use, progress or _silent, BlobCheck(store, use, contents=blobs)).run()


def _silent(phase: str, done: int, total: int | None) -> None:
    """Tell nobody."""


class _Check:
    """One run."""

    def __init__(self, store: DirectoryStore, use: Use, progress: Progress, blobs: BlobCheck) -> None:
        self._store = store
        self._use = use
        self._blobs = blobs
        self._progress = progress
        self._flushed = store.flushed
        self._headless = OidSet()  # objects of which only revisions stand in a Full home
        self._passing: list[tuple[Finding, bytes]] = []  # files that may be at work, and what they held

    def run(self) -> Iterator[Finding]:
        view = self._store.view()  # while it is open, nothing that it sees is dropped or packed away
        try:
            self._progress("reading the journal", 0, None)
            surroundings = Surroundings(self._store, self._use)
            yield from surroundings.findings()
            damaged = False
            for finding in self._home_findings():
                damaged = damaged or finding.kind in ("checksum", "name", "pointer", "unreadable", "misplaced")
                yield finding
            connections = Connections(
                self._store,
                surroundings.waiting,
                self._headless,
                view.snapshot,
                damaged,
                self._progress,
                self._blobs,
            )
            yield from connections.findings()
            yield from self._lasting(self._blobs.files(min(self._flushed, view.snapshot)))
            yield from self._what_stayed()
        finally:
            view.close()

    # --- the home ---

    def _home_findings(self) -> Iterator[Finding]:
        self._progress("reading the home", 0, None)
        findings = self._store.home.findings()
        while True:
            try:
                finding = next(findings, None)
            except OSError as error:
                path = error.filename or self._store.directory.home
                yield Finding("unreadable", str(path), error.strerror or str(error))
                return
            if finding is None:
                return
            if not self._is_headless(finding):
                yield from self._lasting([finding])

    def _lasting(self, findings: Iterable[Finding]) -> Iterator[Finding]:
        """Those that are still so; what may be left over, or at work, is put off until `_what_stayed`."""
        for finding in findings:
            if finding.kind == "leftover" and self._use.noticed():
                self._passing.append((finding, self._content(finding.path)))
            elif self._still_so(finding):
                yield finding

    def _content(self, path: str) -> bytes:
        """The beginning of a file; nothing where it is gone."""
        try:
            return self._store.filesystem.read_at(path, 0, 4096)
        except OSError:
            return b""

    def _what_stayed(self) -> Iterator[Finding]:
        """The left-over files that no flush under way has made: these are gone, or others, when it has ended."""
        for _ in range(ROUNDS if self._passing else 0):
            with contextlib.suppress(CorruptionError, OSError):  # damage of the journal was told before
                self._store.waiting()  # returns when no flush is under way
            self._passing = [
                (finding, content)
                for finding, content in self._passing
                if self._still_so(finding) and self._content(finding.path) == content
            ]
        for finding, _ in self._passing:
            yield finding

    def _is_headless(self, finding: Finding) -> bool:
        """Whether it tells of a revision without a `.c` that a pack may have left, which is judged later."""
        oid, tid = finding.oid, finding.tid
        if finding.kind != "pointer" or oid is None or tid is None or tid > self._store.packed_upto():
            return False
        if not isinstance(parse_home_name(_name(finding.path)), RevisionName) or self._current(oid) is not None:
            return False
        self._headless.add(number(oid))
        return True

    def _current(self, oid: Oid) -> Tid | None:
        """What the home says is current; `NO_TID` where it cannot say."""
        try:
            return self._store.home.current(oid)
        except (CorruptionError, OSError):
            return NO_TID

    def _still_so(self, finding: Finding) -> bool:
        """Whether a finding of the home is more than a glimpse of work under way, or to be done again."""
        if finding.kind == "pointer":
            return self._pointer_is_wrong(finding)
        if not self._use.noticed():
            return True
        segment = parse_segment_name(_name(finding.path).removesuffix(TEMPORARY))
        if finding.kind == "leftover" and segment is not None and segment.last > self._flushed:
            return False
        return finding.kind == "unreadable" or self._store.filesystem.exists(finding.path)

    def _pointer_is_wrong(self, finding: Finding) -> bool:
        if finding.oid is None or finding.tid is None:
            return True
        if not self._store.filesystem.exists(finding.path):
            return False
        current = self._current(finding.oid)
        if current == finding.tid:  # a flush has caught up with the revision, unless it is missing
            return self._is_missing(finding.oid, finding.tid)
        # While the flusher is at a revision, or an interrupted one was, the journal has all of it still.
        return current == NO_TID or (finding.tid <= self._flushed and (current is None or current < finding.tid))

    def _is_missing(self, oid: Oid, tid: Tid) -> bool:
        """Whether the home has no such revision. One that cannot be read is told as that."""
        try:
            return self._store.home.revision(oid, tid) is None
        except (CorruptionError, OSError):
            return False


def _name(path: str) -> str:
    return path.rpartition("/")[2]

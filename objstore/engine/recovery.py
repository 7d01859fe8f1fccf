"""Recovery: what a journal means that some process left behind, cleanly or not.

A directory whose file has a header was committed, whatever its name is: a power cut may take back the renames
of a recycled directory. The chain of previous tids decides which transactions count. From the mark `flushed`:

1. a `_temp` directory without a header was never committed: it is dropped;
2. a transaction at or before the mark is in the home already: its directory is let go of, unless its file
   has become that of a later one;
3. the others are accepted in the order of tids, while each is whole and names the one before as its
   predecessor. A later one may say that this one was known to be durable; else all of it is read and verified;
4. where one is missing or torn, it and the rest were not acknowledged, because who acknowledges has waited
   until all before were synced; so the rest is rolled back: dropped where it has no header of its own, else
   moved to `lost+found`, where one can look at it;
5. unless one of the rest was committed when something after the last accepted one was known to be durable.
   Then what is missing had been acknowledged: that is damage, and nothing is touched.

`examine` only reads; `recover` acts on what it found. Recovering twice, or after a crash in the middle of
recovering, comes to the same.
"""

from __future__ import annotations

import contextlib
import logging
from typing import NamedTuple

from objstore.contracts import Filesystem, Finding
from objstore.engine.blobs import sweep_temporaries
from objstore.engine.journal import Journal, Waiting
from objstore.engine.marks import FLUSHED, Marks
from objstore.errors import CorruptionError
from objstore.formats.layouts import (
    DoneName,
    HomeDirectory,
    SpareName,
    TempName,
    done_name,
    parse_journal_name,
    temp_name,
)
from objstore.formats.transactions import FileHeader
from objstore.ids import NO_TID, Tid

log = logging.getLogger("objstore")


class Candidate(NamedTuple):
    """A directory that may hold a committed transaction later than the mark `flushed`.

    `header` is None where its file has none, or a damaged one: `error` says so then.
    """

    directory: str
    tid: Tid
    previous: Tid
    header: FileHeader | None
    error: CorruptionError | None = None


class Examination:
    """What a journal holds. Directories are told by their names."""

    def __init__(self, last: Tid) -> None:
        self.last = last
        """The newest transaction that counts; the mark `flushed` where the journal holds none."""
        self.waiting: list[Waiting] = []
        self.unsure: list[Waiting] = []
        """Those of `waiting` of which nobody knows whether they are durable."""
        self.unfinished: list[TempName] = []
        self.flushed: list[DoneName] = []
        self.unreached: list[Candidate] = []
        self.spares: list[SpareName] = []
        self.foreign: list[str] = []
        self.damage: list[Finding] = []


def examine(journal: Journal, marks: Marks, durable: Tid = NO_TID) -> Examination:
    """Tell what the journal holds. Writes nothing, and raises nothing but OSError.

    `durable` is a transaction that is known to be durable, where the store is in use.
    """
    flushed = Tid(marks.get(FLUSHED))
    found = Examination(last=flushed)
    candidates: list[Candidate] = []
    for entry in journal.filesystem.entries(journal.path):
        name = parse_journal_name(entry.name) if entry.is_directory else None
        if name is None:
            found.foreign.append(entry.name)
        else:
            _sort(journal, entry.name, name, flushed, found, candidates)
    candidates.sort(key=lambda candidate: candidate.tid)
    durable = max(durable, flushed, *(each.header.durable for each in candidates if each.header is not None))
    for at, candidate in enumerate(candidates):
        reason = _accept(journal, candidate, durable, found)
        if reason is not None:
            found.unreached = candidates[at:]
            if durable > found.last:
                found.damage.append(reason)
            break
    return found


def _sort(
    journal: Journal,
    entry: str,
    name: DoneName | TempName | SpareName,
    flushed: Tid,
    found: Examination,
    candidates: list[Candidate],
) -> None:
    """Tell a directory that holds a transaction that waits from one that does not."""
    header, error = None, None
    try:
        header = journal.header(entry)
    except CorruptionError as damage:
        error = damage
    if header is not None and header.tid <= flushed:
        header = None  # of the transaction that the directory was used for before
    match name:
        case DoneName(tid, previous) if tid > flushed:
            if header is not None and (header.tid, header.previous) != (tid, previous):
                path = f"{journal.path}/{entry}"
                header, error = None, CorruptionError(path, "its file holds another transaction", tid=tid)
            candidates.append(Candidate(entry, tid, previous, header, error))
        case _ if header is not None:
            candidates.append(Candidate(entry, header.tid, header.previous, header))
        case DoneName():
            found.flushed.append(name)
        case TempName():
            found.unfinished.append(name)
        case SpareName():
            found.spares.append(name)


def _accept(journal: Journal, candidate: Candidate, durable: Tid, found: Examination) -> Finding | None:
    """Count a transaction if it is the next one and whole; else tell why not."""
    path, tid, error = f"{journal.path}/{candidate.directory}", candidate.tid, candidate.error
    reason = "its file says nothing of it"
    if candidate.previous != found.last:
        reason = f"transactions from {found.last.hex()} on were committed before this one and are missing"
        return Finding("chain", path, reason, tid=tid)
    if candidate.header is not None:
        is_sure = tid <= durable
        try:
            waiting = journal.adopt(candidate.directory, candidate.header, whole=not is_sure)
        except CorruptionError as damage:
            error = damage
        else:
            found.waiting.append(waiting)
            if not is_sure:
                found.unsure.append(waiting)
            found.last = tid
            return None
    return Finding("journal", error.path if error else path, error.reason if error else reason, tid=tid)


def recover(directory: HomeDirectory, journal: Journal, marks: Marks) -> Examination:
    """Examine the journal and bring it into order. Raises CorruptionError, having touched nothing."""
    found = examine(journal, marks)
    require_whole(found)
    sweep_temporaries(journal.filesystem, directory)
    marks.settle()  # first, because what the marks say is in the home is let go of below
    let_go = [temp_name(temporary.token) for temporary in found.unfinished]
    let_go += [done_name(name.tid, name.previous) for name in found.flushed]
    for name in let_go:
        # It means nothing any more, so it may as well stay, as where somebody has put a directory into it.
        with contextlib.suppress(OSError):
            journal.remove(name)
    for spare in found.spares:
        journal.keep_spare(spare)
    blank = [each for each in found.unreached if each.header is None and each.error is None]
    for candidate in reversed(blank):
        journal.remove(candidate.directory)
    written = [each for each in found.unreached if each not in blank]
    if written:
        _set_aside(directory, journal.filesystem, written)
    # What counts is durable from here on, also where the process that committed it did not live to sync.
    unsure = {each.tid for each in found.unsure}
    found.waiting = [journal.settle(each, sync=each.tid in unsure) for each in found.waiting]
    journal.sync()
    return found


def require_whole(found: Examination) -> None:
    """Raises CorruptionError that says what an operator can do, if there is damage."""
    if found.damage:
        first = found.damage[0]
        raise CorruptionError(
            first.path,
            f"{first.message}; `objstore check` lists all there is. Restore the store from a backup, or give "
            "up this and all later transactions by moving their directories out of the journal",
            tid=first.tid,
        )


def _set_aside(directory: HomeDirectory, filesystem: Filesystem, candidates: list[Candidate]) -> None:
    with contextlib.suppress(FileExistsError):
        filesystem.make_directory(directory.lost_and_found)
        filesystem.sync_directory(directory.path)
    for candidate in reversed(candidates):  # newest first: what stays after a crash is a tail still
        name = done_name(candidate.tid, candidate.previous)
        target = f"{directory.lost_and_found}/{name}"
        attempt = 0
        while filesystem.exists(target):
            attempt += 1
            target = f"{directory.lost_and_found}/{name}.{attempt}"
        log.warning("%s was not acknowledged before a crash; it is kept as %s", name, target)
        filesystem.rename(f"{directory.journal}/{candidate.directory}", target)
    filesystem.sync_directory(directory.lost_and_found)
    filesystem.sync_directory(directory.journal)

"""Recovery: what a journal means that some process left behind, cleanly or not.

The chain of previous tids decides. Beginning at the mark `flushed`:

1. a `_temp` directory was never committed: it is dropped;
2. a `_done` directory at or before the mark is in the home already: it is let go of;
3. the others are accepted in the order of tids while each names the one before as its predecessor;
4. at a gap, the rest was not acknowledged, because whoever acknowledges has synced the journal, and with it
   the names of all before; so the rest is rolled back: moved to `lost+found`, where one can look at it;
5. unless a transaction of the rest was written when something after the gap's beginning was known to be
   durable. Then what is missing had been acknowledged: that is damage, and nothing is touched.

`examine` only reads; `recover` acts on what it found. Recovering twice, or after a crash in the middle of
recovering, comes to the same.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, field

from objstore.contracts import Filesystem, Finding
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
from objstore.ids import Tid

log = logging.getLogger("objstore")


@dataclass(slots=True)
class Examination:
    """What a journal holds."""

    last: Tid
    """The newest transaction that counts; the mark `flushed` where the journal holds none."""
    waiting: list[Waiting] = field(default_factory=list)
    unfinished: list[TempName] = field(default_factory=list)
    flushed: list[DoneName] = field(default_factory=list)
    unreached: list[DoneName] = field(default_factory=list)
    spares: list[SpareName] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    damage: list[Finding] = field(default_factory=list)


def examine(journal: Journal, marks: Marks) -> Examination:
    """Tell what the journal holds. Writes nothing, and raises nothing but OSError."""
    flushed = Tid(marks.get(FLUSHED))
    found = Examination(last=flushed)
    done: list[DoneName] = []
    for entry in journal.filesystem.entries(journal.path):
        match parse_journal_name(entry.name) if entry.is_directory else None:
            case DoneName() as name if name.tid <= flushed:
                found.flushed.append(name)
            case DoneName() as name:
                done.append(name)
            case TempName() as name:
                found.unfinished.append(name)
            case SpareName() as name:
                found.spares.append(name)
            case None:
                found.foreign.append(entry.name)
    done.sort(key=lambda name: name.tid)
    for at, name in enumerate(done):
        if name.previous != found.last:
            found.unreached = done[at:]
            break
        waiting = _adopt(journal, name, found)
        if waiting is None:
            break
        found.waiting.append(waiting)
        found.last = name.tid
    for name in found.unreached:
        waiting = _adopt(journal, name, found)
        if waiting is not None and waiting.header.durable > found.last:
            found.damage.append(
                Finding(
                    "chain",
                    waiting.path,
                    f"the transactions from {found.last.hex()} to {waiting.header.durable.hex()} were committed "
                    "before this one and are missing",
                    tid=name.tid,
                )
            )
    return found


def _adopt(journal: Journal, name: DoneName, found: Examination) -> Waiting | None:
    try:
        return journal.adopt(name)
    except CorruptionError as error:
        found.damage.append(Finding("journal", error.path, error.reason, tid=name.tid))
        return None


def recover(directory: HomeDirectory, journal: Journal, marks: Marks) -> Examination:
    """Examine the journal and bring it into order. Raises CorruptionError, having touched nothing."""
    found = examine(journal, marks)
    require_whole(found)
    marks.settle()  # first, because what the marks say is in the home is let go of below
    let_go = [temp_name(temporary.token) for temporary in found.unfinished]
    let_go += [done_name(name.tid, name.previous) for name in found.flushed]
    for name in let_go:
        # It means nothing any more, so it may as well stay, as where somebody has put a directory into it.
        with contextlib.suppress(OSError):
            journal.remove(name)
    for spare in found.spares:
        journal.keep_spare(spare)
    if found.unreached:
        _set_aside(directory, journal.filesystem, found.unreached)
    # What counts is durable from here on, also where the process that renamed it did not live to sync.
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


def _set_aside(directory: HomeDirectory, filesystem: Filesystem, names: list[DoneName]) -> None:
    with contextlib.suppress(FileExistsError):
        filesystem.make_directory(directory.lost_and_found)
        filesystem.sync_directory(directory.path)
    for name in reversed(names):  # newest first: what stays after a crash is a tail still
        source = done_name(name.tid, name.previous)
        target = f"{directory.lost_and_found}/{source}"
        attempt = 0
        while filesystem.exists(target):
            attempt += 1
            target = f"{directory.lost_and_found}/{source}.{attempt}"
        log.warning("%s was not acknowledged before a crash; it is kept as %s", source, target)
        filesystem.rename(f"{directory.journal}/{source}", target)
    filesystem.sync_directory(directory.lost_and_found)
    filesystem.sync_directory(directory.journal)

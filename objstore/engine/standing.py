"""Where a process stands when it begins to follow what others do with a store.

Others commit and flush while it looks. Commits come at the journal's new end, flushes take from its old end. So
it reads from the newest transaction that was committed when it began back to the first that has been flushed: what
comes and goes meanwhile is in nobody's way, and is caught up with later.
"""

from __future__ import annotations

from typing import NamedTuple

from objstore.engine.journal import Journal
from objstore.engine.marks import FLUSHED, Marks
from objstore.engine.recovery import Examination
from objstore.errors import CorruptionError
from objstore.formats.layouts import DoneName, parse_journal_name
from objstore.ids import Tid, tid_from
from objstore.machine import board as words
from objstore.machine.board import Board


class Standing(NamedTuple):
    """What a process knows of a store when it begins to follow the board."""

    found: Examination
    epoch: int
    generation: int
    known: int
    durable_count: int
    durable: Tid


def beginning(board: Board, found: Examination) -> Standing:
    """Where the board tells nothing that was not found in the journal."""
    count = board.words[words.COUNT]
    return Standing(found, board.words[words.EPOCH], board.words[words.GENERATION], count, count, found.last)


def examined(board: Board, journal: Journal, marks: Marks) -> Standing:
    """What a journal holds that others write to meanwhile. Raises CorruptionError, OSError."""
    epoch, generation, count = (board.words[at] for at in (words.EPOCH, words.GENERATION, words.COUNT))
    marks.read()
    last = tid_from(board.tid(count - 1))
    parsed = (parse_journal_name(entry.name) for entry in journal.filesystem.entries(journal.path))
    names = {name.tid: name for name in parsed if isinstance(name, DoneName)}
    found = Examination(last)
    tid = last
    while tid > Tid(marks.get(FLUSHED)):
        try:
            if tid not in names:
                raise CorruptionError(journal.path, "a committed transaction is missing", tid=tid)
            found.waiting.append(journal.adopt_named(*names[tid]))
        except (OSError, CorruptionError):
            marks.read()
            if tid > Tid(marks.get(FLUSHED)):
                raise
            break  # it and all before it have been flushed since
        tid = names[tid].previous
    found.waiting.reverse()
    at = min(count, board.words[words.HINT])
    while at < count and board.state(at) == words.SYNCED:
        at += 1
    return Standing(found, epoch, generation, count, at, tid_from(board.tid(at - 1)))

"""Where a process stands when it begins to follow what others do with a store.

Others commit and flush while it looks. So it looks again until it has seen the journal at a moment when nothing
had left it, and at least what was committed when it began to look.
"""

from __future__ import annotations

from dataclasses import dataclass

from objstore.engine.journal import Journal
from objstore.engine.marks import Marks
from objstore.engine.recovery import Examination, examine, require_whole
from objstore.errors import StorageError
from objstore.ids import Tid, number, tid_from
from objstore.machine import board as words
from objstore.machine.board import Board

_ATTEMPTS = 50


@dataclass(frozen=True, slots=True)
class Standing:
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
    """What a journal holds that others write to meanwhile. Raises CorruptionError, StorageError, OSError."""
    for attempt in range(1, _ATTEMPTS + 1):
        epoch, generation, count = (board.words[at] for at in (words.EPOCH, words.GENERATION, words.COUNT))
        marks.read()
        last = board.tid(count - 1)
        found = examine(journal, marks, tid_from(last))
        if (board.words[words.EPOCH], board.words[words.GENERATION]) != (epoch, generation):
            continue
        if (found.damage or number(found.last) < last) and attempt < _ATTEMPTS:
            continue
        require_whole(found)
        while board.tid(count - 1) < number(found.last) and count < board.words[words.COUNT]:
            count += 1
        last = board.tid(count - 1)
        found.waiting = [waiting for waiting in found.waiting if number(waiting.tid) <= last]
        found.last = tid_from(last)
        at = min(count, board.words[words.HINT])
        while at < count and board.state(at) == words.SYNCED:
            at += 1
        return Standing(found, epoch, generation, count, at, tid_from(board.tid(at - 1)))
    raise StorageError(f"{journal.path}: the store changes too fast to be followed; try again")

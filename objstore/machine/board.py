"""The board: a small shared memory file that makes it fast to see what other processes have done.

It is an array of 64-bit words in the machine's byte order; reading or writing an aligned word is one step. The
directory tree is the truth: the board is begun anew by whoever opens a store that nobody else has open.

    words 0 to 63      the fields named below
    then the ring      of the newest transactions: tid and state of each, in the order of commits
    then the blocks    of 64 words: pid, start time and role of a process, then pairs (snapshot, since when)

What is written by whom: the ring and `COUNT` under the writer lock; the state of an entry by who has synced it;
`FLUSHED`, `GENERATION` and `VOLUME` under the flush lock; the claim of a block under the claims lock, what is in
it by its owner, or by anybody once the owner is dead.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from objstore.errors import LockProtocolError, StorageError
from objstore.machine.processes import is_alive

MAGIC = int.from_bytes(b"objstore", "big")
PROTOCOL = 1
"""The version of the lock protocol: of the board's layout, and of which lock guards what."""

_MAGIC, _PROTOCOL, EPOCH, COUNT, HINT, BASE, FLUSHED, GENERATION = range(8)
BUSY, BLOCKS, PAST, DOOMS, FAILED, CHANGING, ALONE, _NUMBER = range(8, 16)
VOLUME = 16
RING, BLOCKS_LIMIT = 2048, 256
_RING_AT = 64
_BLOCKS_AT = _RING_AT + 2 * RING
BLOCK = 64
_HEADER = 4
PLACES = (BLOCK - _HEADER) // 2
"""How many snapshots a block has room for."""
SIZE = 8 * (_BLOCKS_AT + BLOCK * BLOCKS_LIMIT)

SYNCED = 1
OWNED = 2
"""The state of an entry that is not synced yet is this plus the number of its owner's block."""
EXPIRED = 1 << 63
"""Set in the word of a snapshot that was taken from its reader."""


class Reader(NamedTuple):
    """A snapshot that a process holds. `since` is a time in seconds; `expired`, whether it lost it."""

    pid: int
    snapshot: int
    since: int
    expired: bool
    alive: bool


class Board:
    """The words of a board, by name. It locks nothing: see above."""

    def __init__(self, words: memoryview, path: str, number: int) -> None:
        """`number` tells its file from copies of it: what a copy says is about others."""
        self.words = words
        self.path = path
        self._number = number

    # --- the beginning ---

    @property
    def is_own(self) -> bool:
        """Whether it is about this store: not new, nor a copy of another one. Else only `begin` writes into it."""
        return bool(self.words[_NUMBER] == self._number)

    @property
    def is_live(self) -> bool:
        """Whether somebody has begun it. Raises LockProtocolError where that was another version."""
        words = self.words
        if words[_MAGIC] != MAGIC or not self.is_own:
            return False
        if words[_PROTOCOL] != PROTOCOL:
            raise LockProtocolError(self.path, words[_PROTOCOL], PROTOCOL)
        return True

    def begin(self, last: int, flushed: int) -> int:
        """Begin it anew, for a store that nobody else writes; the epoch. What readers hold stays."""
        words = self.words
        words[_MAGIC] = 0  # who looks now finds none
        if not self.is_own:
            words[:] = memoryview(bytes(SIZE)).cast("Q")
            words[_NUMBER] = self._number
        words[_RING_AT:_BLOCKS_AT] = memoryview(bytes(8 * 2 * RING)).cast("Q")
        for field in (COUNT, HINT, BUSY, PAST, DOOMS, FAILED, CHANGING, ALONE):
            words[field] = 0
        words[BASE], words[FLUSHED] = last, flushed
        words[GENERATION] += 1
        words[EPOCH] += 1
        words[_PROTOCOL], words[_MAGIC] = PROTOCOL, MAGIC
        return int(words[EPOCH])

    # --- the ring ---

    def tid(self, at: int) -> int:
        """The tid of the transaction before which `at` others were committed; `BASE` before the first."""
        return int(self.words[_RING_AT + 2 * (at % RING)] if at >= 0 else self.words[BASE])

    def state(self, at: int) -> int:
        """SYNCED, or OWNED plus the block of who is to sync it."""
        return int(self.words[_RING_AT + 2 * (at % RING) + 1])

    def append(self, tid: int, block: int) -> int:
        """Publish a transaction, with the writer lock held; its place."""
        words, at = self.words, self.words[COUNT]
        entry = _RING_AT + 2 * (at % RING)
        words[entry], words[entry + 1] = tid, OWNED + block
        words[COUNT] = at + 1
        return int(at)

    def settle(self, at: int) -> None:
        """A transaction is synced."""
        self.words[_RING_AT + 2 * (at % RING) + 1] = SYNCED

    # --- the blocks ---

    def claim(self, pid: int, start: int, is_writer: bool) -> int:
        """A block for a process, with the claims lock held; its number. Raises StorageError where none is free.

        The block of one that died between publishing and syncing stays its own until somebody has synced what it
        left: else that would look like the new owner's, and all would wait for it.
        """
        words = self.words
        for block in range(BLOCKS_LIMIT):
            at = _BLOCKS_AT + BLOCK * block
            if (words[at] == 0 or not is_alive(words[at], words[at + 1])) and not self._has_unsynced(block):
                self.clear(block)
                words[at + 1], words[at + 2] = start, int(is_writer)
                words[at] = pid
                words[BLOCKS] = max(words[BLOCKS], block + 1)
                return block
        raise StorageError(f"{self.path}: too many readers; `objstore readers` lists them")

    def _has_unsynced(self, block: int) -> bool:
        """Whether a transaction of the ring is yet to be synced by who has, or had, a block."""
        count = self.words[COUNT]
        return any(self.state(at) == OWNED + block for at in range(max(self.words[HINT], count - RING), count))

    def clear(self, block: int) -> None:
        """Free a block, whose owner is gone or goes."""
        at = _BLOCKS_AT + BLOCK * block
        self.words[at + _HEADER : at + BLOCK] = memoryview(bytes(8 * (BLOCK - _HEADER))).cast("Q")
        self.words[at + 1] = self.words[at + 2] = 0
        self.words[at] = 0  # the pid goes last: until then nobody else claims it

    def owner(self, block: int) -> tuple[int, int]:
        """Pid and start time of a block's owner; 0 and 0 where it is free."""
        at = _BLOCKS_AT + BLOCK * block
        return int(self.words[at]), int(self.words[at + 1])

    def place(self, block: int, number: int) -> int:
        """The word of a snapshot, by block and number in it. The next word says since when."""
        return _BLOCKS_AT + BLOCK * block + _HEADER + 2 * number

    def used_blocks(self) -> Iterator[int]:
        """The blocks that are claimed."""
        for block in range(self.words[BLOCKS]):
            if self.words[_BLOCKS_AT + BLOCK * block]:
                yield block

    def processes(self) -> set[tuple[int, int, bool]]:
        """Pid, start time and whether it writes, of each process that has a block."""
        words = self.words
        starts = (_BLOCKS_AT + BLOCK * block for block in self.used_blocks())
        return {(int(words[at]), int(words[at + 1]), bool(words[at + 2])) for at in starts}

    def living(self) -> list[int]:
        """The pids of the processes that live, in order."""
        return sorted({pid for pid, start, _ in self.processes() if is_alive(pid, start)})

    def owner_alone(self) -> int:
        """The pid of the process that has the store for itself; 0 where none has."""
        block = self.words[ALONE] - 1
        if block < 0:
            return 0
        pid, start = self.owner(block)
        return pid if pid and is_alive(pid, start) else 0

    def has_writer(self) -> bool:
        """Whether a process that lives has the store open to write."""
        return any(is_writer and is_alive(pid, start) for pid, start, is_writer in self.processes())

    def oldest(self, bound: int) -> int:
        """The oldest snapshot that is held, `bound` where none is older. Blocks of the dead are freed."""
        for block in self.used_blocks():
            at = _BLOCKS_AT + BLOCK * block
            held = [word for word in self.words[at + _HEADER : at + BLOCK : 2].tolist() if 0 < word < EXPIRED]
            if held and min(held) < bound:
                if is_alive(*self.owner(block)):
                    bound = min(held)
                else:
                    self.clear(block)
        return bound

    def expire(self, before: int) -> int:
        """Take the snapshots older than `before` from their readers; how many lost theirs."""
        count = 0
        for block in self.used_blocks():
            for number in range(PLACES):
                place = self.place(block, number)
                held = self.words[place]
                if 0 < held < before:
                    self.words[place] = held | EXPIRED
                    count += 1
        return count

    def expire_held_since(self, moment: int) -> int:
        """Take the snapshots from their readers that have been held since that time or longer; how many."""
        count = 0
        for block in self.used_blocks():
            for number in range(PLACES):
                place = self.place(block, number)
                held = self.words[place]
                if 0 < held < EXPIRED and self.words[place + 1] <= moment:
                    self.words[place] = held | EXPIRED
                    count += 1
        return count

    def clear_stale(self) -> int:
        """Free the blocks of processes that have died; how many."""
        dead = [block for block in self.used_blocks() if not is_alive(*self.owner(block))]
        for block in dead:
            self.clear(block)
        return len(dead)

    def newer_than(self, snapshot: int) -> int:
        """How many transactions of the ring are newer."""
        count = self.words[COUNT]
        return sum(self.tid(at) > snapshot for at in range(max(0, count - RING), count))

    def readers(self) -> list[Reader]:
        """All snapshots that are held."""
        found = []
        for block in self.used_blocks():
            pid, start = self.owner(block)
            for number in range(PLACES):
                place = self.place(block, number)
                held, since = self.words[place], self.words[place + 1]
                if held:
                    found.append(
                        Reader(pid, held & ~EXPIRED, int(since), bool(held & EXPIRED), is_alive(pid, start))
                    )
        return found

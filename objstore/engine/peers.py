"""Following what other processes do with a store: commits, flushes, and what they leave when they die.

`catch_up` compares two words of the board with what is known here. New transactions are read from their
directories in the journal, where whoever committed them has written them before they came into the ring; what was
flushed since is looked up in the home from then on. A transaction that was committed and flushed since the last
look is no longer in the journal: which objects it changed is then not known, and taken for any.

Who takes the writer lock and finds `BUSY` set looks for what a writer has left that died while it committed: a
directory that follows the last transaction. Whole it is a transaction, and is synced and published; torn it is
dropped, because nobody was told of it.
"""

from __future__ import annotations

from threading import Lock

from objstore.contracts import Home
from objstore.engine.commits import Commits
from objstore.engine.journal import Journal, Waiting
from objstore.engine.lookup import Lookup
from objstore.engine.marks import FLUSHED, Marks
from objstore.engine.membership import Membership
from objstore.engine.standing import Standing, examined
from objstore.errors import CorruptionError
from objstore.formats.layouts import DoneName, parse_journal_name
from objstore.ids import NO_TID, Tid, number, tid_from
from objstore.machine import board as words
from objstore.machine.board import RING


class Peers:
    """Keeps one process's view of a store true. May be used by any thread."""

    def __init__(
        self,
        membership: Membership,
        commits: Commits,
        lookup: Lookup,
        marks: Marks,
        standing: Standing,
        *,
        follows: bool,
    ) -> None:
        self._membership = membership
        self._board = membership.board
        self._commits = commits
        self._lookup = lookup
        self._marks = marks
        self._follows = follows
        self._epoch, self._generation = standing.epoch, standing.generation
        self._lock = Lock()  # after the writer lock and the flusher's: guards the index's growth and these fields

    @property
    def _journal(self) -> Journal:
        return self._lookup.journal

    @property
    def _home(self) -> Home:
        return self._lookup.home

    # --- what others have committed and flushed ---

    def catch_up(self) -> None:
        """Know what the board shows. Costs four looks where there is nothing new. Raises CorruptionError,
        OSError.
        """
        board = self._board.words
        if (
            board[words.COUNT] == self._commits.known
            and board[words.GENERATION] == self._generation
            and board[words.EPOCH] == self._epoch
        ):
            if self._commits.is_behind:
                self._commits.advance()
            return
        if not self._follows:
            return
        with self._lock:
            self._catch_up()
        self._commits.advance()

    def _catch_up(self) -> None:
        board, commits = self._board, self._commits
        if board.words[words.GENERATION] != self._generation:
            self._refresh()
        count = board.words[words.COUNT]
        if board.words[words.EPOCH] != self._epoch or count - commits.known >= RING // 2:
            self._resync()
            return
        for at in range(commits.known, count):
            tid, previous = tid_from(board.tid(at)), tid_from(board.tid(at - 1))
            waiting = self._adopted(tid, previous)
            if waiting is not None:
                self._lookup.index.add(waiting)
            commits.take_over(tid, frozenset(waiting.transaction.oids) if waiting is not None else None)

    def _adopted(self, tid: Tid, previous: Tid) -> Waiting | None:
        """A transaction of another process; None where it has been flushed already."""
        if tid > Tid(self._marks.get(FLUSHED)):
            try:
                return self._journal.adopt_named(tid, previous)
            except (OSError, CorruptionError):
                self._refresh()
                if tid > Tid(self._marks.get(FLUSHED)):
                    raise
        return None

    def _refresh(self) -> None:
        """Others have changed the home: look there anew, and no longer in the journal for what was flushed."""
        generation = self._board.words[words.GENERATION]
        self._marks.read()
        flushed = Tid(self._marks.get(FLUSHED))
        self._home.refresh(flushed)
        self._lookup.index.remove_upto(flushed)
        self._journal.look_for_spares()
        self._generation = generation  # last, because who finds it is told that there is nothing new

    def _resync(self) -> None:
        """Too much has happened to follow it: begin anew from the journal."""
        standing = examined(self._board, self._journal, self._marks)
        self._refresh()
        for waiting in standing.found.waiting:
            if not self._lookup.index.holds(waiting.tid):
                self._lookup.index.add(waiting)
        self._commits.reset(standing)
        self._epoch, self._generation = standing.epoch, standing.generation

    # --- what this process does itself ---

    def publish(self, waiting: Waiting) -> None:
        """Let a transaction of this process be known, here and to others. Called with the writer lock held."""
        with self._lock:
            self._lookup.index.add(waiting)
            self._commits.publish(waiting.tid, frozenset(waiting.transaction.oids))

    def changed_home(self) -> None:
        """Tell others that the home is not what it was. Called with the flush lock held, before anything goes."""
        with self._lock:
            board = self._board.words
            is_news = board[words.GENERATION] != self._generation
            board[words.GENERATION] += 1
            if not is_news:
                self._generation = board[words.GENERATION]

    def flushed(self, tid: Tid) -> None:
        """Tell others what the home holds. Called with the flush lock held."""
        self._board.words[words.FLUSHED] = number(tid)
        self.changed_home()

    # --- when a lock was taken ---

    def entered_writer(self) -> None:
        """The writer lock was taken: clear up what a writer has left that died, and know all there is."""
        if self._board.words[words.BUSY]:
            self._clear_up()
        self.catch_up()

    def _clear_up(self) -> None:
        board, journal = self._board, self._journal
        last = tid_from(board.tid(board.words[words.COUNT] - 1))
        for entry in journal.filesystem.entries(journal.path):
            name = parse_journal_name(entry.name)
            if not isinstance(name, DoneName) or name.previous != last or name.tid <= last:
                continue
            try:
                waiting = journal.adopt_named(name.tid, name.previous, whole=True)
            except CorruptionError:
                journal.remove(entry.name)
                continue
            journal.settle(waiting, sync=True)
            journal.sync()
            board.settle(board.append(number(name.tid), self._membership.block))
        board.words[words.BUSY] = 0

    def entered_home(self) -> None:
        """The flush lock was taken. Who had it before may have died in the middle: then the home is looked at
        anew.
        """
        board = self._board.words
        if board[words.CHANGING]:
            self._marks.read()
            board[words.FLUSHED] = number(Tid(self._marks.get(FLUSHED)))
            board[words.GENERATION] += 1
        board[words.CHANGING] = 1
        self.catch_up()

    def left_home(self) -> None:
        """The flush lock is about to be let go of, and the home is in order."""
        self._board.words[words.CHANGING] = 0

    def rescue(self, tid: Tid, previous: Tid) -> None:
        """Make a transaction durable whose process died before it did."""
        self._journal.sync_named(tid, previous)


class OtherProcesses:
    """What a home knows of other processes (`buckets.Others`): made before the parts that follow them."""

    def __init__(self, membership: Membership, *, is_live: bool) -> None:
        """`is_live` is false where nobody can tell this process anything."""
        self._words = membership.board.words
        self.is_live = is_live
        self.peers: Peers | None = None

    @property
    def flushed_now(self) -> Tid:
        """The home holds every transaction up to this one."""
        return tid_from(self._words[words.FLUSHED]) if self.is_live else NO_TID

    @property
    def generation(self) -> int:
        """Counts the changes of the home by any process."""
        return int(self._words[words.GENERATION])

    def changed_home(self) -> None:
        """Tell others that files have been replaced, before these are removed."""
        if self.peers is not None:
            self.peers.changed_home()

"""The order of commits: which transaction is the last, which are durable, and what each changed.

`last` is the newest transaction that was committed, `durable` the newest that a power cut cannot take back:
it and all before it were synced, each by who committed it, many at the same time where there are many threads
or processes. Nobody is shown anything newer than `durable`. Conflicts are looked for up to `last`, in the oid sets
of the transactions since one's snapshot, which are kept here while anybody may need them.

Both are what this process knows: the ring of the board tells what others have committed and synced since, and
`peers` takes that over. A transaction whose process died before it could sync it is synced by whoever waits; so is
one that is not synced for long, whatever keeps its process from it.
"""

from __future__ import annotations

import contextlib
import time
from bisect import bisect_right
from collections.abc import Callable, Container, Iterator
from operator import itemgetter
from threading import Condition, Lock

from objstore.engine.failures import storage_error
from objstore.engine.membership import Membership
from objstore.engine.standing import Standing
from objstore.errors import StorageFailedError
from objstore.ids import Oid, Tid, number, tid_from
from objstore.machine.board import BUSY, COUNT, FAILED, HINT, OWNED, SYNCED

MAX_REMEMBERED = 1_000_000
"""How many changed oids are kept at most; who is further behind looks each object up, or forgets all."""
_GLANCE = 0.0001
"""Seconds between looks at whether another process has synced."""
_PATIENCE = 50
"""Looks after which it is asked whether that process lives."""
_LONG = 5.0
"""Seconds after which who waits syncs what it waits for, whoever was to do that: a signal such as Ctrl-C may have
taken the owner from its work, and to sync twice does no harm.
"""

_NOTHING: frozenset[Oid] = frozenset()
_tid = itemgetter(0)


class WriterLock:
    """Held from the last conflict check of a vote until the transaction was published, for one at a time.

    Another thread may let go of it than has taken it.
    """

    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        self._lock = Lock()
        self._holder: object = None
        self.entered: Callable[[], None] = lambda: None
        """Called when the lock was taken: takes over what others have committed."""

    def acquire(self, holder: object) -> None:
        """Take it. Raises what taking over meets. Whether or not it raises, `release` is to be called."""
        self._holder = self._lock.acquire() and holder
        self._membership.writer.acquire()
        self.entered()

    def release(self, holder: object) -> None:
        """Let go of it; nothing, where this holder does not hold it: it may have been interrupted anywhere."""
        if self._holder is holder:
            self._membership.writer.release()
            # No signal comes in between: CPython looks for them where calls return.
            self._holder = None; self._lock.release()  # noqa: E702  # fmt: skip

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """While inside, nobody commits."""
        holder = object()
        try:
            self.acquire(holder)
            yield
        finally:
            self.release(holder)


class Commits:
    """Sequences the commits of a process among those of all."""

    def __init__(self, standing: Standing, path: str, membership: Membership) -> None:
        self.writer = WriterLock(membership)  # rank 1: guards the order of commits and `last`
        self._board = membership.board
        self._membership = membership
        self.known = standing.known
        """How many of the ring's transactions are known here."""
        self._settled = Condition(Lock())  # rank 3: guards the three below
        self._durable_count = standing.durable_count  # how many of the ring's are known to be durable
        self._waiting = 0
        self.durable = standing.durable
        self._places: dict[Tid, int] = {}  # of this process's transactions that are not synced
        self.syncs = 0
        self.rescue: Callable[[Tid, Tid], None] | None = None
        """Syncs a transaction, given by its tid and the one before, whose process died."""
        self._lock = Lock()  # a leaf: guards the lists below
        self.last = standing.found.last
        self._path = path
        self._failure: StorageFailedError | None = None
        self._forgotten = self.last  # the lists tell all changes after this tid
        self._changes: list[tuple[Tid, frozenset[Oid]]] = []
        self._remembered = 0
        self._watched: bytearray | None = None  # what was changed since `watch`, packed

    def reset(self, standing: Standing) -> None:
        """Begin anew at another place of the ring."""
        with self._settled, self._lock:
            self.known, self._durable_count = standing.known, standing.durable_count
            self.durable = standing.durable
            self.last = self._forgotten = standing.found.last
            self._changes.clear()
            self._remembered = 0

    def fail(self, reason: str) -> StorageFailedError:
        """Stop writing for good: nobody can say what is on the disk."""
        self._failure = StorageFailedError(self._path, reason)
        return self._failure

    def require_sound(self) -> None:
        """Raises StorageFailedError after a failure, of this process or of another."""
        if self._failure is not None:
            raise StorageFailedError(self._failure.path, self._failure.args[0]) from self._failure
        if self._board.words[FAILED]:
            raise self.fail("another process could not sync a transaction")

    def begin(self) -> None:
        """From here to `publish` a death leaves something that the next writer must look at."""
        self._board.words[BUSY] = 1

    def give_back(self) -> None:
        """Nothing was published after all, and nothing is left."""
        self._board.words[BUSY] = 0

    def publish(self, tid: Tid, oids: frozenset[Oid]) -> None:
        """Make a committed transaction the last one. Called with `writer` held."""
        self._remember(tid, oids)
        self._places[tid] = self._board.append(number(tid), self._membership.block)
        self.last = tid
        self.known += 1
        self._board.words[BUSY] = 0

    def take_over(self, tid: Tid, oids: frozenset[Oid] | None) -> None:
        """Know the next transaction of the ring, committed by another process; `oids` None: nobody knows which.

        If that is broken off, as by Ctrl-C, it may be done again: it counts as known last.
        """
        if oids is not None:
            self._remember(tid, oids)
        else:
            with self._lock:
                self._forget(len(self._changes))
                self._forgotten = tid
        self.last = tid
        self.known += 1

    def _remember(self, tid: Tid, oids: frozenset[Oid]) -> None:
        with self._lock:
            self._changes.append((tid, oids))
            self._remembered += len(oids)
            if self._watched is not None:
                self._watched += b"".join(oids)
            if self._remembered > MAX_REMEMBERED:
                self._forget(len(self._changes) // 2)

    def make_durable(self, tid: Tid, sync: Callable[[], None]) -> None:
        """Sync a published transaction, and return once all before it are durable too.

        Raises StorageFailedError where this or an earlier sync fails: whether what it was to make durable is
        there after a crash, nobody can say.
        """
        self._sync(tid, sync)
        if self.durable < tid:
            self._wait(tid)

    def make_up(self, tid: Tid, sync: Callable[[], None]) -> None:
        """Sync a transaction whose commit was broken off, as by Ctrl-C, if it was published and is not synced: all
        that come after wait for it. Raises StorageFailedError.
        """
        if self._failure is not None:
            return
        if tid not in self._places:  # it may have been broken off while it was published
            board, own = self._board, OWNED + self._membership.block
            for at in range(self._durable_count, board.words[COUNT]):
                if board.tid(at) == number(tid) and board.state(at) == own:
                    self._places[tid] = at
        if tid in self._places:
            self._sync(tid, sync)

    def _sync(self, tid: Tid, sync: Callable[[], None]) -> None:
        try:
            sync()
        except OSError as error:
            raise self._give_up(error.strerror or str(error)) from error
        self._settle(tid)

    def _give_up(self, reason: str) -> StorageFailedError:
        failure = self.fail(f"a transaction cannot be synced: {reason}")
        self._board.words[FAILED] = 1
        with self._settled:
            self._settled.notify_all()
        return failure

    def _settle(self, tid: Tid) -> None:
        """A transaction of this process is synced."""
        place = self._places.get(tid)
        if place is not None:
            self.syncs += 1
            self._board.settle(place)
            self._places.pop(tid, None)
        self.advance()

    def advance(self) -> None:
        """Move `durable` on over all that are known and synced, and have none before them that is not."""
        with self._settled:
            board, count = self._board, self._durable_count
            while count < self.known and board.state(count) == SYNCED:
                count += 1
            if count > self._durable_count:
                self.durable = tid_from(board.tid(count - 1))
                self._durable_count = count
                if board.words[HINT] < count:
                    board.words[HINT] = count
                if self._waiting:
                    self._settled.notify_all()

    @property
    def is_behind(self) -> bool:
        """Whether the ring shows more that is durable than is known here."""
        at, board = self._durable_count, self._board
        return at != board.words[COUNT] and (board.state(at) == SYNCED or at < board.words[HINT])

    def _wait(self, tid: Tid) -> None:
        looks, first, since = 0, -1, 0.0
        while self.durable < tid:
            self.require_sound()
            at = self._durable_count
            if at != first:
                first, since = at, time.monotonic()
            owner = self._board.state(at) - OWNED
            if owner == self._membership.block:
                with self._settled:
                    self._waiting += 1
                    try:
                        if self._durable_count == at and self._board.state(at) != SYNCED:
                            self._settled.wait(min(1.0, _LONG))
                    finally:
                        self._waiting -= 1
            else:
                self._rest(at)
            looks += 1
            if (looks % _PATIENCE == 0 and self._is_orphaned(at)) or time.monotonic() - since >= _LONG:
                try:
                    self._rescue(at)
                except OSError as error:
                    raise self._give_up(error.strerror or str(error)) from error
            self.advance()

    def _rest(self, at: int) -> None:
        """Let another process sync what is at this place of the ring."""
        with self._settled:
            if self._durable_count == at:
                self._settled.wait(_GLANCE)

    def rescue_dead(self) -> None:
        """Make durable what processes have published that died before they could sync it. Raises StorageError."""
        at = self._durable_count
        try:
            while at < self.known and self._is_orphaned(at):
                self._rescue(at)
                self.advance()
                at += 1
        except OSError as error:
            raise storage_error(self._path, error) from error

    def _is_orphaned(self, at: int) -> bool:
        owner = self._board.state(at) - OWNED
        return owner >= 0 and owner != self._membership.block and not self._membership.owner_is_alive(owner)

    def _rescue(self, at: int) -> None:
        """Sync a transaction in place of who was to. Raises OSError where it is not known to be durable then."""
        if self.rescue is None or self._is_settled(at):
            return
        try:
            self.rescue(tid_from(self._board.tid(at)), tid_from(self._board.tid(at - 1)))
        except OSError:
            if not self._is_settled(at):  # else it was, and may be flushed by now
                raise
        else:
            self._board.settle(at)

    def _is_settled(self, at: int) -> bool:
        return self._board.state(at) == SYNCED or self._board.words[HINT] > at

    def changed(self, after: Tid, upto: Tid, except_for: Container[Tid] = ()) -> frozenset[Oid] | None:
        """The oids changed by transactions with `after` < tid <= `upto`, those of some left out.

        None where that is no longer known.
        """
        if after >= upto:
            return _NOTHING
        with self._lock:
            if after < self._forgotten:
                return None
            first = bisect_right(self._changes, after, key=_tid)
            end = bisect_right(self._changes, upto, first, key=_tid)
            sets = [oids for tid, oids in self._changes[first:end] if tid not in except_for]
        return sets[0] if len(sets) == 1 else _NOTHING.union(*sets)

    def watch(self) -> None:
        """From here on keep which objects are changed, for `watched`: eight bytes for each change."""
        with self._lock:
            self._watched = bytearray()

    def watched(self) -> bytes:
        """The oids, packed, that were changed since `watch` or the last call. With `writer` held: all."""
        with self._lock:
            if not self._watched:
                return b""
            watched, self._watched = bytes(self._watched), bytearray()
            return watched

    def unwatch(self) -> None:
        """No longer keep what is changed."""
        with self._lock:
            self._watched = None

    def forget(self, upto: Tid) -> None:
        """Nobody's snapshot is older than `upto`: what was changed by then need not be known."""
        with self._lock:
            self._forget(bisect_right(self._changes, upto, key=_tid))

    def _forget(self, count: int) -> None:
        if count:
            self._forgotten = self._changes[count - 1][0]
            self._remembered -= sum(len(oids) for _, oids in self._changes[:count])
            del self._changes[:count]

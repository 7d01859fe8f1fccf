"""The order of commits: which transaction is the last, which are durable, and what each changed.

`last` is the newest transaction that was committed, `durable` the newest that a power cut cannot take back:
it and all before it were synced, each by who committed it, many at the same time where there are many threads.
Nobody is shown anything newer than `durable`. Conflicts are looked for up to `last`, in the oid sets of the
transactions since one's snapshot, which are kept here while anybody may need them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Container
from threading import Condition, Lock

from objstore.errors import StorageFailedError
from objstore.ids import Oid, Tid

MAX_REMEMBERED = 1_000_000
"""How many changed oids are kept at most; who is further behind looks each object up, or forgets all."""

_NOTHING: frozenset[Oid] = frozenset()


class Commits:
    """Sequences the commits of a process.

    `writer` is held from the last conflict check of a vote until the transaction was published.
    """

    def __init__(self, last: Tid, path: str) -> None:
        self.writer = Lock()  # rank 1: guards the order of commits and `last`
        self._settled = Condition(Lock())  # rank 3: guards the four below
        self._unsettled: dict[Tid, bool] = {}  # those after `durable`, in their order, and whether they are synced
        self._waiting = 0
        self.durable = last
        self.syncs = 0
        self._lock = Lock()  # a leaf: guards the lists below
        self.last = last
        self._path = path
        self._failure: StorageFailedError | None = None
        self._forgotten = last  # the lists tell all changes after this tid
        self._tids: list[Tid] = []
        self._changes: list[frozenset[Oid]] = []
        self._remembered = 0
        self._watched: bytearray | None = None  # what was changed since `watch`, packed

    def fail(self, reason: str) -> StorageFailedError:
        """Stop writing for good: nobody can say what is on the disk."""
        self._failure = StorageFailedError(self._path, reason)
        return self._failure

    def require_sound(self) -> None:
        """Raises StorageFailedError after a failure."""
        if self._failure is not None:
            raise StorageFailedError(self._failure.path, self._failure.args[0]) from self._failure

    def publish(self, tid: Tid, oids: frozenset[Oid]) -> None:
        """Make a committed transaction the last one. Called with `writer` held."""
        with self._settled:
            self._unsettled[tid] = False
        with self._lock:
            self._tids.append(tid)
            self._changes.append(oids)
            self._remembered += len(oids)
            if self._watched is not None:
                self._watched += b"".join(oids)
            if self._remembered > MAX_REMEMBERED:
                self._forget(len(self._tids) // 2)
        self.last = tid

    def make_durable(self, tid: Tid, sync: Callable[[], None]) -> None:
        """Sync a published transaction, and return once all before it are durable too.

        Raises StorageFailedError where this or an earlier sync fails: whether what it was to make durable is
        there after a crash, nobody can say.
        """
        try:
            sync()
            self._settle(tid)
        except OSError as error:
            raise self._give_up(error.strerror or str(error)) from error
        except BaseException:  # as by Ctrl-C; but nobody else can sync it, and all that come after it wait for it
            try:
                sync()
                self._settle(tid)
            except BaseException as error:
                self._give_up(repr(error))
                raise
            raise
        if self.durable < tid:
            self._wait(tid)

    def _give_up(self, reason: str) -> StorageFailedError:
        failure = self.fail(f"a transaction cannot be synced: {reason}")
        with self._settled:
            self._settled.notify_all()
        return failure

    def _settle(self, tid: Tid) -> None:
        """A transaction is synced: move `durable` on over all that are, and have none before them that is not."""
        with self._settled:
            unsettled = self._unsettled
            if tid in unsettled:
                self.syncs += 1
                unsettled[tid] = True
            while unsettled:
                first = next(iter(unsettled))
                if not unsettled[first]:
                    break
                self.durable = first
                del unsettled[first]
            if self._waiting:
                self._settled.notify_all()

    def _wait(self, tid: Tid) -> None:
        with self._settled:
            self._waiting += 1
            try:
                while self.durable < tid:
                    self.require_sound()
                    self._settled.wait()
            finally:
                self._waiting -= 1

    def changed(self, after: Tid, upto: Tid, except_for: Container[Tid] = ()) -> frozenset[Oid] | None:
        """The oids changed by transactions with `after` < tid <= `upto`, those of some left out.

        None where that is no longer known.
        """
        if after >= upto:
            return _NOTHING
        with self._lock:
            if after < self._forgotten:
                return None
            first, end = bisect_right(self._tids, after), bisect_right(self._tids, upto)
            sets = [self._changes[at] for at in range(first, end) if self._tids[at] not in except_for]
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
            self._forget(bisect_right(self._tids, upto))

    def _forget(self, count: int) -> None:
        if count:
            self._forgotten = self._tids[count - 1]
            self._remembered -= sum(len(oids) for oids in self._changes[:count])
            del self._tids[:count], self._changes[:count]

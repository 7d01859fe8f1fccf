"""Telling those who share a storage, and have no snapshots of their own, what others have committed.

ZODB's MVCCAdapter, which a DemoStorage or a ZEO server stands below or beside, keeps snapshots by being told of
every transaction, in the order of their tids. It is told of its own by the callback of `tpc_finish`, of those of
other processes here, whenever it asks by `sync`. `told` is the newest of which everybody knows: what
`lastTransaction` has to say. So a server that has just finished a transaction finds the tid of that there, and not
of one that another process has committed a moment later.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock
from typing import Any

from objstore.engine.store import DirectoryStore
from objstore.ids import MAX_TID, Tid
from objstore.zodb.listing import changes


class Following:
    """Whom to tell, and of what they have been told. May be used by any thread."""

    def __init__(self, store: DirectoryStore, has_instances: Callable[[], bool]) -> None:
        """`has_instances` tells whether connections have snapshots of their own."""
        self._store = store
        self._has_instances = has_instances
        self._wrapper: Any = None
        self._lock = RLock()  # guards the telling; held while a transaction is finished. A callback may ask again
        self._told = store.last_tid()

    @property
    def told(self) -> Tid:
        """The newest transaction that has been told of; where nobody wants to be told, the newest."""
        if not self.is_needed:
            self._told = max(self._told, self._store.last_tid())
            return self._told
        with self._lock:  # what is just being finished can be loaded already
            return self._told

    @property
    def is_needed(self) -> bool:
        """Whether anybody wants to be told: then nothing newer is to be shown.

        A wrapper that is itself a storage would hand on what it is told; but not to a `ZODB.DB` that has
        asked, through it, for instances.
        """
        wrapper = self._wrapper
        return wrapper is not None and not (hasattr(wrapper, "tpc_begin") and self._has_instances())

    def register(self, wrapper: Any) -> None:
        """Tell an `IStorageWrapper` from now on, in place of the one before."""
        with self._lock:
            self._told = self._store.last_tid()
            self._wrapper = wrapper

    def catch_up(self) -> None:
        """Tell of all that others have committed."""
        if self.is_needed:
            with self._lock:
                self._tell(MAX_TID)

    def finish(self, finish: Callable[[], Tid | None], callback: Callable[[Tid], object] | None) -> Tid:
        """Finish a transaction of this storage, and tell of it by its callback, after all that are earlier.

        `finish` gives its tid, None where it has written nothing.
        """
        with self._lock:
            tid = finish()
            if self.is_needed:
                self._tell(tid or MAX_TID)
            tid = tid or self.told
            if callback is not None:
                callback(tid)
            self._told = max(self._told, tid)
            return tid

    def _tell(self, before: Tid) -> None:
        found = changes(self._store, self._told)
        if found is None:
            self._told = self._store.last_tid()
            self._wrapper.invalidateCache()
            return
        for transaction in found:
            if transaction.tid >= before:
                break
            self._wrapper.invalidate(transaction.tid, transaction.oids)
            self._told = transaction.tid

"""Views: a snapshot of an adopted storage, which is one of its instances."""

from __future__ import annotations

import os
from typing import Any

from ZODB import POSException

from objstore.compat.adopted.failures import foreign_errors, ours, translated
from objstore.errors import ClosedError, ForkedConnectionError, POSKeyError, SnapshotTooOldError
from objstore.ids import Oid, Tid, number, tid_from

_NOTHING: frozenset[Oid] = frozenset()


class AdoptedView:
    """A `contracts.View`. `fixed` is the tid of a view of the past; `native` says that the snapshots are the
    storage's own, so that each instance knows how far it sees."""

    def __init__(self, name: str, base: Any, fixed: Tid | None, *, native: bool) -> None:
        self._name = name
        self._native = native
        self._fixed = fixed
        self._pid = os.getpid()
        self._closed = False
        self._untold: set[Oid] | None = set()  # what `catch_up` has passed by
        with ours(name):
            if fixed is not None:
                self.instance = base.before_instance(tid_from(number(fixed) + 1))
                self._snapshot = fixed
            else:
                self.instance = base.new_instance()
                self._move()
        self.failures = foreign_errors()

    @property
    def snapshot(self) -> Tid:
        """The tid up to which this view sees. Where the storage does not say, one that it surely sees."""
        return self._snapshot

    def load(self, oid: Oid) -> tuple[bytes, Tid]:
        if self._closed or self._pid != os.getpid():
            raise self._gone()
        try:
            data, serial = self.instance.load(oid)
        except POSException.POSKeyError as error:
            raise POSKeyError(oid, tid=self._snapshot) from error
        except POSException.ReadConflictError as error:
            # The storage does not know whether the object was not there yet, or was packed away meanwhile.
            if self._fixed is not None or self._is_newest():
                raise POSKeyError(oid, tid=self._snapshot) from error
            raise SnapshotTooOldError(self._snapshot) from error
        except self.failures as error:
            raise translated(error, self._name, oid) from error
        if data is None:
            raise POSKeyError(oid, tid=self._snapshot)
        return data, Tid(serial)

    def _is_newest(self) -> bool:
        with ours(self._name):
            return bool(self.instance.lastTransaction() <= self._snapshot)

    def advance(self) -> frozenset[Oid] | None:
        if self._closed or self._pid != os.getpid():
            raise self._gone()
        if self._fixed is not None:
            return _NOTHING
        try:
            changed = self._move()
        except self.failures as error:
            raise translated(error, self._name) from error
        if self._untold or self._untold is None:
            changed = None if changed is None or self._untold is None else self._untold.union(changed)
            self._untold = set()
        return None if changed is None else frozenset(changed)

    def catch_up(self) -> None:
        """Move on in the middle of a commit that was overtaken; what has changed is told by the next `advance`."""
        with ours(self._name):
            changed = self._move()
        if changed is None:
            self._untold = None
        elif self._untold is not None:
            self._untold.update(changed)

    def _move(self) -> Any:
        """Move on. What was committed by then is seen, perhaps more."""
        instance = self.instance
        instance.sync(True)
        if self._native:
            changed = instance.poll_invalidations()
            self._snapshot = Tid(instance.lastTransaction())
        else:
            self._snapshot = Tid(instance.lastTransaction())
            changed = instance.poll_invalidations()
        return changed

    def _gone(self) -> Exception:
        return ForkedConnectionError("a connection") if self._pid != os.getpid() else ClosedError("the view")

    def close(self) -> None:
        if not self._closed and self._pid == os.getpid():
            self._closed = True
            with ours(self._name):
                self.instance.release()

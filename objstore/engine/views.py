"""Views: a reader's snapshot over the lookup."""

from __future__ import annotations

from objstore.engine.commits import Commits
from objstore.engine.lookup import Lookup
from objstore.engine.membership import Membership
from objstore.engine.snapshots import Slot, Snapshots
from objstore.errors import ClosedError, ForkedConnectionError, POSKeyError, SnapshotTooOldError, UsageError
from objstore.ids import Oid, Tid

_NOTHING: frozenset[Oid] = frozenset()


class StoreView:
    """A `contracts.View` of a store."""

    def __init__(
        self, lookup: Lookup, commits: Commits, snapshots: Snapshots, at: Tid | None, membership: Membership
    ) -> None:
        self._lookup = lookup
        self._commits = commits
        self._snapshots = snapshots
        self._slot: Slot = snapshots.open(at)
        self._own: set[Tid] = set()
        self._membership = membership
        self._closed = False

    @property
    def snapshot(self) -> Tid:
        return self._slot.snapshot

    def load(self, oid: Oid) -> tuple[bytes, Tid]:
        if self._closed or self._membership.is_forked:
            raise self._gone()
        slot = self._slot
        found = self._lookup.record(oid, slot.snapshot)
        if slot.expired:  # looked at after the load: from now on the home may hold something newer
            raise SnapshotTooOldError(slot.snapshot)
        if found is not None:
            data, tid = found
            if data is not None:
                return data, tid
        raise POSKeyError(oid, tid=slot.snapshot)

    def advance(self) -> frozenset[Oid] | None:
        if self._closed or self._membership.is_forked:
            raise self._gone()
        slot = self._slot
        self._snapshots.catch_up()
        new = self._commits.durable
        if slot.fixed or (slot.snapshot == new and not slot.expired):
            return _NOTHING
        # Asked before the slot moves: once it has moved, the changes may be forgotten.
        changed = self._commits.changed(slot.snapshot, new, except_for=self._own)
        if not self._snapshots.move(slot, new):
            new = self._snapshots.renew(slot)
            changed = None
        self._own = {tid for tid in self._own if tid > new}
        return changed

    def committed(self, tid: Tid) -> None:
        """`tid` was committed on the ground of this view, whose owner knows what it changed."""
        self._own.add(tid)

    def _gone(self) -> UsageError:
        if self._membership.is_forked:
            return ForkedConnectionError("a connection")
        return ClosedError("the view")

    def close(self) -> None:
        if not self._closed and not self._membership.is_forked:
            self._closed = True
            self._snapshots.close(self._slot)

"""What a pending transaction writes: in memory, or, past so many bytes of records, in its draft on the disk.

So the memory that a transaction takes does not depend on how large its records are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, KeysView
from dataclasses import replace

from objstore.engine.drafts import Draft
from objstore.ids import NO_TID, Oid, Tid
from objstore.revisions import Revision


class Writes:
    """Revisions by oid; each has `NO_TID` for its tid, and as `previous` the serial that it was changed from.

    `begin` makes the draft, once; up to `memory` bytes of records are kept in memory. Used by one thread at a
    time.
    """

    def __init__(self, begin: Callable[[], Draft], memory: int) -> None:
        self._begin = begin
        self._memory = memory
        self._volume = 0
        self._previous: dict[Oid, Tid] = {}  # of all
        self._held: dict[Oid, Revision] = {}  # those that the draft does not have
        self.draft: Draft | None = None

    def put(self, revision: Revision) -> None:
        """Add a revision, in place of an earlier one of the same object. Raises OSError."""
        self._previous[revision.oid] = revision.previous
        self._held[revision.oid] = revision
        self._volume += len(revision.data or b"")
        if self._volume > self._memory:
            self.spill()

    def spill(self) -> Draft:
        """Move what is in memory to the draft. Raises OSError."""
        if self.draft is None:
            self.draft = self._begin()
        self.draft.add(self._held.values())
        self._held.clear()
        self._volume = 0
        return self.draft

    def get(self, oid: Oid) -> Revision | None:
        """What is written for an object. Raises OSError, CorruptionError."""
        held = self._held.get(oid)
        if held is not None or oid not in self._previous or self.draft is None:
            return held
        return replace(self.draft.read(oid), tid=NO_TID)

    def previous(self, oid: Oid) -> Tid:
        """The serial that a revision was changed from."""
        return self._previous[oid]

    def oids(self) -> KeysView[Oid]:
        """The objects that are written."""
        return self._previous.keys()

    def __bool__(self) -> bool:
        return bool(self._previous)

    def __contains__(self, oid: object) -> bool:
        return oid in self._previous

    def __iter__(self) -> Iterator[Revision]:
        """All of them, read from the disk where they stand there."""
        for oid in self._previous:
            revision = self.get(oid)
            if revision is not None:
                yield revision

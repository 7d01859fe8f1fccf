"""Records that were read before their objects are looked at, many in one pass.

They belong to one snapshot: who moves it, forgets them. A record stays until its object is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from objstore.contracts import View
from objstore.errors import POSKeyError
from objstore.ids import Oid, Tid


class Prefetched:
    """What a connection has read ahead. Used by one thread at a time."""

    def __init__(self) -> None:
        self._records: dict[Oid, tuple[bytes, Tid]] = {}

    def __bool__(self) -> bool:
        return bool(self._records)

    def read(self, view: View, oids: Iterable[Oid]) -> None:
        """Read records in the order of their oids, as they lie on the disk; what is not there is left out.

        Raises SnapshotTooOldError, CorruptionError, StorageError.
        """
        for oid in sorted(set(oids) - self._records.keys()):
            try:
                self._records[oid] = view.load(oid)
            except POSKeyError:
                continue

    def get(self, oid: Oid) -> tuple[bytes, Tid] | None:
        """A record and its serial; None where it was not read ahead."""
        return self._records.get(oid)

    def take(self, oid: Oid) -> tuple[bytes, Tid] | None:
        """The same, and forget it."""
        return self._records.pop(oid, None)

    def clear(self) -> None:
        self._records.clear()


def oids_in(things: Iterable[Any]) -> Iterator[Oid]:
    """The oids of oids, of persistent objects, and of iterables of either. New objects have none.

    Raises TypeError for anything else.
    """
    for each in things:
        if isinstance(each, bytes):
            if len(each) != 8:
                raise TypeError(f"an oid is 8 bytes, not {each!r}")
            yield Oid(each)
        elif isinstance(each, str):
            raise TypeError(f"oids are bytes, not {each!r}")
        elif not hasattr(each, "_p_oid"):
            yield from oids_in(each)
        elif each._p_oid is not None:
            yield each._p_oid

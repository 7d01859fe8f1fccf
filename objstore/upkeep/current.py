"""Every object of a store as it is now, each once, in bounded memory.

What waits in the journal is listed first, so that a flush meanwhile moves nothing past the one who looks: each oid
is known from the journal or met in the home. All records are of one snapshot; what is written later is not seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from objstore.contracts import Progress
from objstore.engine.store import DirectoryStore
from objstore.errors import POSKeyError
from objstore.ids import Oid, Tid, number, oid_from
from objstore.upkeep.reachable import OidSet


class Current(NamedTuple):
    """An object's current record."""

    oid: Oid
    serial: Tid
    data: bytes


def current_records(store: DirectoryStore, progress: Progress) -> Iterator[Current]:
    """The current records of all objects, those that nothing refers to included, in no promised order.

    Raises CorruptionError, SnapshotTooOldError, ClosedError.
    """
    view = store.view()
    try:
        for done, oid in enumerate(_oids(store)):
            progress("objects", done, None)
            try:
                data, serial = view.load(oid)
            except POSKeyError:  # deleted, or created since
                continue
            yield Current(oid, serial, data)
    finally:
        view.close()


def _oids(store: DirectoryStore) -> Iterator[Oid]:
    waiting = OidSet(number(summary.oid) for summary in store.waiting())
    yield from map(oid_from, waiting)
    for oid in store.home.oids():
        if number(oid) not in waiting:
            yield oid

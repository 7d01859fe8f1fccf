"""Stores for tests of the engine: opened over any filesystem, written through the contracts only."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from itertools import product

from persistent.mapping import PersistentMapping

from objstore.contracts import Conflict, Filesystem, Format, History, StoreOptions
from objstore.engine.opening import open_store
from objstore.engine.store import DirectoryStore
from objstore.errors import ConflictError
from objstore.formats.pickles import class_name
from objstore.ids import NO_TID, Oid, Tid, oid_from, pack_oids
from objstore.revisions import Details
from objstore.upkeep.pack import pack

COMBINATIONS = list(product(History, Format))
FULL = [(History.FULL, layout) for layout in Format]
PATH = "/store"
CLASS_PICKLE = pickle.dumps(PersistentMapping, 3)
BY_TESTER = Details("tester", "a commit")


def record(value: object, references: tuple[Oid, ...] = ()) -> tuple[bytes, bytes]:
    """A record that holds a value, and its packed references."""
    data = CLASS_PICKLE + pickle.dumps((value, references), 3)
    return data, pack_oids(references)


def value_of(data: bytes) -> object:
    """The value that `record` put into a record."""
    return pickle.loads(data[len(CLASS_PICKLE) :])[0]


def refuse(conflict: Conflict) -> tuple[bytes, bytes]:
    name = class_name(conflict.new)
    raise ConflictError(conflict.oid, conflict.serial, conflict.committed_serial, name)


def add_up(conflict: Conflict) -> tuple[bytes, bytes]:
    """Resolve counters as BTrees.Length does: add the difference to what is current."""
    old, committed, new = (value_of(data) for data in (conflict.old, conflict.committed, conflict.new))
    return record(committed + new - old)


def open_on(
    filesystem: Filesystem,
    history: History = History.FULL,
    format: Format = Format.CHUNKY,
    clock: Callable[[], float] | None = None,
    **options: object,
) -> DirectoryStore:
    """A store over a filesystem, flushed by hand unless `background=True`."""
    options.setdefault("background", False)
    chosen = StoreOptions(history=history, format=format, **options)
    more = {"clock": clock} if clock is not None else {}
    return open_store(PATH, chosen, filesystem=filesystem, packer=pack, **more)


def commit(
    store: DirectoryStore,
    values: Mapping[int, object],
    references: Mapping[int, tuple[int, ...]] | None = None,
    *,
    view=None,
    details: Details = BY_TESTER,
    resolver=refuse,
) -> Tid:
    """Commit values by oid number (None deletes), on the ground of a view or of what is newest."""
    own = view or store.view()
    try:
        pending = store.begin(details, own, resolver)
        for number, value in values.items():
            oid = oid_from(number)
            data, packed = None, None
            if value is not None:
                data, packed = record(value, tuple(oid_from(to) for to in (references or {}).get(number, ())))
            pending.store(oid, serial_of(store, own, oid), data, packed)
        pending.vote()
        return pending.finish()
    finally:
        if view is None:
            own.close()


def serial_of(store: DirectoryStore, view, oid: Oid) -> Tid:
    """The serial that a writer who reads through `view` starts from, of deleted objects too."""
    return next((found.tid for found in _summaries(store, oid) if found.tid <= view.snapshot), NO_TID)


def _summaries(store: DirectoryStore, oid: Oid):
    try:
        yield from store.summaries(oid)
    except KeyError:
        return


def contents(store: DirectoryStore, numbers, at: Tid | None = None) -> dict[int, object]:
    """The values of the objects that there are, by number."""
    view = store.view(at)
    found = {}
    for number in numbers:
        try:
            found[number] = value_of(view.load(oid_from(number))[0])
        except KeyError:
            continue
    view.close()
    return found

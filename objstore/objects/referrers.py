"""Who refers to an object that is missing: found in what a connection has cached, for the POSKeyError to say."""

from __future__ import annotations

from collections.abc import Callable

from persistent import PickleCache

from objstore.errors import ObjstoreError, POSKeyError
from objstore.formats import pickles
from objstore.ids import Oid, Tid, split_oids


def tell_referrer(error: POSKeyError, cache: PickleCache, load: Callable[[Oid], tuple[bytes, Tid]]) -> None:
    """Find an object in a cache that refers to a missing one, from the newest, by their records."""
    missing = Oid(error.oid)
    if error.referrer is not None:
        return
    for oid, _ in reversed(cache.lru_items()):
        try:
            data, _ = load(oid)
            refers = data.find(missing) >= 0 and missing in split_oids(pickles.references(data))
        except ObjstoreError:  # it is not there yet, or cannot be read: ask the next one
            continue
        if refers:
            error.referrer = oid
            return

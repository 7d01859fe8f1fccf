"""Conflicts resolved as ZODB does it, and records that a wrapper around the storage has transformed.

A wrapper such as zc.zlibstorage compresses records before it hands them down, and tells by `registerDB` how to get
them back: that is needed to merge records, and to find what they refer to.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

from ZODB.ConflictResolution import tryToResolveConflict
from ZODB.POSException import ConflictError as ZodbConflictError

from objstore.contracts import Conflict
from objstore.errors import ConflictError, SerializationError
from objstore.formats import pickles
from objstore.zodb.translating import UnresolvedError

COMPRESSED = b".z"
"""What the records of zc.zlibstorage begin with, and no pickle does."""

Transform = Callable[[bytes], bytes]


def _as_it_is(data: bytes) -> bytes:
    return data


class Records:
    """What is known of the records of a storage: how to transform them, and to read their references."""

    def __init__(self) -> None:
        self.wrapped: Transform = _as_it_is
        """From ZODB's record to the one that is stored."""
        self.unwrapped: Transform = _as_it_is
        """And back."""

    def register(self, wrapper: Any) -> None:
        """Use the transformation of an `IStorageWrapper`; databases have none."""
        self.wrapped = wrapper.transform_record_data
        self.unwrapped = wrapper.untransform_record_data

    def references(self, data: bytes) -> bytes | None:
        """The packed references of a stored record; None where it is not one that can be read here.

        Records that zc.zlibstorage compressed can be, also where it stands with the clients of a server.
        """
        try:
            data = self.unwrapped(data)
            if data.startswith(COMPRESSED):
                data = zlib.decompress(data[len(COMPRESSED) :])
            return pickles.references(data)
        except (SerializationError, zlib.error):
            return None


class Resolver:
    """A `contracts.Resolver` by the classes' `_p_resolveConflict`, which ZODB calls."""

    def __init__(self, records: Records, try_to_resolve: Callable[..., bytes]) -> None:
        """`try_to_resolve` is the storage's `tryToResolveConflict`, which servers may replace."""
        self._records = records
        self._try_to_resolve = try_to_resolve

    def __call__(self, conflict: Conflict) -> tuple[bytes, bytes]:
        """The merged record and its references. Raises ConflictError."""
        try:
            data = self._try_to_resolve(
                conflict.oid, conflict.committed_serial, conflict.serial, conflict.new, conflict.committed
            )
        except ZodbConflictError as error:
            raise _refusal(conflict, error.class_name) from UnresolvedError(conflict.new)
        references = self._records.references(data)
        if references is None:  # that it refers to nothing must not be said of it
            raise _refusal(conflict, None) from UnresolvedError(conflict.new)
        return data, references


def _refusal(conflict: Conflict, class_name: str | None) -> ConflictError:
    return ConflictError(conflict.oid, conflict.serial, conflict.committed_serial, class_name)


class Resolution:
    """What ZODB's function asks of the storage whose conflict it resolves."""

    def __init__(self, records: Records, load: Callable[[bytes, bytes], bytes]) -> None:
        self.loadSerial = load
        self._crs_transform_record_data = records.wrapped
        self._crs_untransform_record_data = records.unwrapped

    def resolve(self, oid: bytes, committed: bytes, old: bytes, new: bytes, data: bytes = b"") -> bytes:
        """The merged record. Raises ZODB's ConflictError."""
        merged: bytes = tryToResolveConflict(self, oid, committed, old, new, data)
        return merged

"""Errors of ours in the terms of ZODB: what its connections, servers and applications catch.

ZODB tries a transaction again after its own ConflictError, and tells a missing object by its own POSKeyError. The
error of ours is the cause of each, with all that it has to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import ParamSpec, TypeVar

from ZODB import POSException

from objstore.errors import (
    ConflictError,
    CorruptionError,
    DanglingReferenceError,
    HistoryMissingError,
    ObjstoreError,
    POSKeyError,
    ReadConflictError,
    ReadOnlyError,
    SnapshotTooOldError,
    StorageFailedError,
    UndoError,
)

P = ParamSpec("P")
R = TypeVar("R")


class UnresolvedError(Exception):
    """The cause of a conflict that was to be resolved, and could not be: the record that was to be stored."""

    def __init__(self, data: bytes) -> None:
        super().__init__("the conflict was not resolved")
        self.data = data


def in_terms_of_zodb(function: Callable[P, R]) -> Callable[P, R]:
    """The same function, with the errors of ours that it raises translated."""

    @wraps(function)
    def translating(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except ObjstoreError as error:
            raise translated(error) from error

    return translating


def each_in_terms_of_zodb(items: Iterator[R]) -> Iterator[R]:
    """The same items, with the errors of ours translated that getting them raises."""
    try:
        yield from items
    except ObjstoreError as error:
        raise translated(error) from error


def translated(error: ObjstoreError) -> Exception:
    """What ZODB calls an error of ours."""
    found: Exception
    match error:
        case POSKeyError():
            found = POSException.POSKeyError(error.oid)
        case ConflictError():
            found = _conflict(error)
        case SnapshotTooOldError():
            found = POSException.ReadConflictError(str(error))
        case UndoError():
            found = _undo_error(error.reason, error.oid)
        case HistoryMissingError():
            found = _undo_error(str(error), None)
        case ReadOnlyError():
            found = POSException.ReadOnlyError(str(error))
        case CorruptionError() | StorageFailedError():
            found = POSException.StorageSystemError(str(error))
        case _:
            found = POSException.StorageError(str(error))
    return found


def _undo_error(reason: str, oid: bytes | None) -> Exception:
    """The kind of UndoError that ZEO knows how to hand on to a client."""
    found = POSException.MultipleUndoErrors([(oid, reason)])
    found._reason, found._oid = reason, oid
    error: Exception = found
    return error


def _conflict(error: ConflictError) -> Exception:
    """A conflict, with the record that was to be stored where there is one: clients of ZEO may resolve it."""
    serials = (error.committed, error.serial)
    if isinstance(error, DanglingReferenceError):
        found = POSException.ConflictError(str(error), oid=error.oid)
    elif isinstance(error, ReadConflictError):
        found = POSException.ReadConflictError(oid=error.oid, serials=serials)
    else:
        found = POSException.ConflictError(oid=error.oid, serials=serials)
    found.class_name = error.class_name
    found.data = error.__cause__.data if isinstance(error.__cause__, UnresolvedError) else None
    conflict: Exception = found
    return conflict

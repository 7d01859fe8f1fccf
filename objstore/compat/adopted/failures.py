"""What the errors of ZODB's storages are in our tree."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from transaction.interfaces import TransientError
from zc.lockfile import LockError
from ZODB import POSException
from ZODB.FileStorage.FileStorage import CorruptedFileStorageError
from ZODB.FileStorage.format import CorruptedError

from objstore.engine.failures import storage_error
from objstore.errors import (
    ConflictError,
    CorruptionError,
    MissingAbilityError,
    ObjstoreError,
    POSKeyError,
    ReadConflictError,
    ReadOnlyError,
    StorageError,
    StoreLockedError,
    StoreUnavailableError,
    TransientStoreError,
)
from objstore.ids import NO_TID, Oid, Tid

_DRIVERS = ("psycopg2", "pg8000", "MySQLdb", "pymysql", "oracledb", "cx_Oracle", "sqlite3")
"""Drivers of databases, each with an `Error` at the root of its errors, as PEP 249 wants it."""


def foreign_errors() -> tuple[type[Exception], ...]:
    """What a storage may raise: ZODB's errors, the system's, and those of the drivers that are loaded."""
    drivers = (getattr(sys.modules.get(name), "Error", None) for name in _DRIVERS)
    found = [each for each in drivers if isinstance(each, type) and issubclass(each, Exception)]
    return (POSException.POSError, CorruptedError, TransientError, LockError, OSError, TimeoutError, *found)


def missing_drivers() -> tuple[type[Exception], ...]:
    """What RelStorage raises, if it is loaded, where no driver of a database is installed: no ImportError."""
    error = getattr(sys.modules.get("relstorage.adapters.interfaces"), "DriverNotAvailableError", None)
    return (error,) if error is not None else ()


def translated(error: Exception, name: str, oid: Oid | None = None) -> ObjstoreError:
    """Our error for one that the storage `name` raised; `oid` is the object it was about, where that is known."""
    if isinstance(error, ObjstoreError):
        return error
    if isinstance(error, POSException.POSKeyError):
        return POSKeyError(oid or _oid(error.args[0] if error.args else None))
    if isinstance(error, POSException.ConflictError):
        return _conflict(error, name, oid)
    if isinstance(error, POSException.ReadOnlyError | POSException.ReadOnlyHistoryError):
        return ReadOnlyError(name)
    if isinstance(error, POSException.Unsupported):
        return MissingAbilityError(name, f"do this ({error})")
    if isinstance(error, TransientError | TimeoutError):  # ZEO's ClientDisconnected, and RelStorage's like
        return StoreUnavailableError(name, str(error) or type(error).__name__)
    if isinstance(error, LockError):
        return StoreLockedError(name)
    if isinstance(error, CorruptedError | CorruptedFileStorageError):
        return CorruptionError(name, str(error))
    if isinstance(error, OSError):
        return storage_error(name, error)
    if isinstance(error, POSException.POSError):
        return StorageError(f"{name}: {type(error).__name__}: {error}")
    return StoreUnavailableError(name, f"{type(error).__name__}: {str(error).strip()}")


def undo_refusal(error: Exception) -> tuple[str, Oid | None] | None:
    """Why a storage refuses to undo, and the object in the way where it says which; None for another error.

    A ZEO hands on what its server met by name and fields; and of several refusals the first stands in the fields.
    """
    fields = vars(error)
    if not isinstance(error, POSException.UndoError):
        if type(error).__name__ != "ServerException" or "UndoError" not in str(error.args[0]):
            return None
        fields = error.args[1] if isinstance(error.args[1], dict) else {}
    values = [fields.get("_oid"), fields.get("_reason")]
    oid = next((Oid(each) for each in values if isinstance(each, bytes) and len(each) == 8), None)
    reason = next((str(each) for each in values if each and not isinstance(each, bytes)), str(error))
    return reason, oid


def _oid(value: object) -> Oid:
    return Oid(value) if isinstance(value, bytes) else Oid(bytes(8))


def _conflict(error: POSException.ConflictError, name: str, oid: Oid | None) -> ObjstoreError:
    known = error.oid or oid
    if known is None:  # a lock that could not be had in time
        return TransientStoreError(f"{name}: {error}; begin the transaction again")
    committed, serial = error.serials or (NO_TID, NO_TID)
    kind = ReadConflictError if isinstance(error, POSException.ReadConflictError) else ConflictError
    return kind(Oid(known), Tid(serial), Tid(committed), error.class_name)


@contextmanager
def ours(name: str, oid: Oid | None = None) -> Iterator[None]:
    """While inside, what the storage `name` raises becomes ours."""
    try:
        yield
    except foreign_errors() as error:
        ours = translated(error, name, oid)
        if ours is error:
            raise
        raise ours from error

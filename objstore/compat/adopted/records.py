"""What a transaction says of itself: between ZODB's storages and us.

ZODB keeps a user and a description as bytes and the extension as a pickle; we as text, and as JSON where that
says the same. To show an extension no pickle is executed: one is decoded that is made of plain values only.
"""

from __future__ import annotations

import io
import json
import pickle
from typing import Any, NoReturn

from ZODB.Connection import TransactionMetaData

from objstore.ids import Oid, Tid
from objstore.objects.details import encode_extension
from objstore.revisions import Details

_NO_PICKLE = (
    pickle.UnpicklingError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    MemoryError,  # for a length that is damaged
)


def text_of(value: str | bytes) -> str:
    """A user or a description as text; bytes that are no UTF-8 are kept as lone surrogates."""
    return value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")


def bytes_of(value: str) -> bytes:
    """The same in the other direction."""
    return value.encode("utf-8", "surrogateescape")


def metadata(details: Details) -> TransactionMetaData:
    """What ZODB's storages are told of a transaction."""
    extension: Any = details.extension
    if extension.startswith(b"{"):
        extension = json.loads(extension)
    return TransactionMetaData(bytes_of(details.user), bytes_of(details.description), extension or {})


def details_of(record: Any) -> Details:
    """The details of a transaction as a storage's iterator gives it, its extension as it is there."""
    return Details(text_of(record.user), text_of(record.description), extension_of(record))


def extension_of(record: Any) -> bytes:
    """The extension of a transaction of a storage, byte for byte where the storage gives the bytes."""
    found = getattr(record, "extension_bytes", None)
    if isinstance(found, bytes):
        return found
    extension = record.extension
    return pickle.dumps(extension, 3) if extension else b""


def readable(details: Details) -> Details:
    """Details to be looked at: the extension as JSON where that says the same."""
    if not details.extension or details.extension.startswith(b"{"):
        return details
    value = _plain(details.extension)
    extension = encode_extension(value) if isinstance(value, dict) else details.extension
    return Details(details.user, details.description, extension)


def is_plain(details: Details) -> bool:
    """Whether the extension is made of plain values only."""
    extension = details.extension
    return not extension or extension.startswith(b"{") or _plain(extension) is not None


def _plain(data: bytes) -> Any:
    """What a pickle of plain values says; None for any other."""
    try:
        return _PlainUnpickler(io.BytesIO(data)).load()
    except _NO_PICKLE:
        return None


class _PlainUnpickler(pickle.Unpickler):
    """Reads pickles of plain values, and imports nothing."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"{module}.{name} is no plain value")


class Written:
    """A revision of a transaction as a storage's iterator gives it."""

    __slots__ = ("copied_from", "data", "oid")

    def __init__(self, record: Any) -> None:
        self.oid = Oid(record.oid)
        self.data: bytes | None = record.data
        self.copied_from: Tid | None = Tid(record.data_txn) if record.data_txn else None

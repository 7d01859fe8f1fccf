"""What becomes of ZODB's blobs: their bytes lie beside the records, and are not moved, so neither are these."""

from __future__ import annotations

from objstore.compat.moving.sources import MovedRecord
from objstore.errors import MissingAbilityError, SerializationError
from objstore.formats import pickles

_MODULE = b"ZODB.blob"
_CLASS = "ZODB.blob.Blob"


def require_no_blob(record: MovedRecord, source: str) -> None:
    """Raises MissingAbilityError for the record of a blob, which would be moved without its bytes."""
    if record.data is None or _MODULE not in record.data:
        return
    try:
        name = pickles.class_name(record.data)
    except SerializationError:
        return
    if name == _CLASS:
        raise MissingAbilityError(
            source,
            f"give away object {record.oid.hex()}, a blob",
            "only records are moved, not the files of blobs",
        )

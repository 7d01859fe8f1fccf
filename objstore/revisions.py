"""What is stored: revisions of objects, and the transactions that wrote them.

These are the values that the floors hand to each other. How they look as bytes is written in `formats`.
"""

from __future__ import annotations

from typing import NamedTuple

from objstore.ids import Oid, Tid


class BlobFacts(NamedTuple):
    """What a record says of the blob that belongs to it: its length in bytes, and the CRC-32 of all of it."""

    size: int
    crc: int


class Revision(NamedTuple):
    """One object's record at one tid.

    `data` is a ZODB record (a pickle of the class, a pickle of the state), or None where the object was
    deleted, as by undoing its creation. `previous` is the serial that this revision replaced, `NO_TID` for
    a first one. `references` are the oids that the record refers to strongly, packed (`ids.split_oids`
    unpacks them), or None where nobody extracted them. `copied_from` is the tid of the revision whose data
    an undo brought back, else None. `blob` is told of the revisions of blobs: their data stand in a file of
    their own.
    """

    oid: Oid
    tid: Tid
    previous: Tid
    data: bytes | None
    references: bytes | None
    copied_from: Tid | None = None
    blob: BlobFacts | None = None


class RevisionSummary(NamedTuple):
    """A revision without its data: what marking, checking and listing need."""

    oid: Oid
    tid: Tid
    previous: Tid
    size: int
    """Bytes of data; 0 where the object was deleted."""
    deleted: bool
    references: bytes | None
    copied_from: Tid | None = None
    blob: BlobFacts | None = None


class Details(NamedTuple):
    """What a transaction says of itself, before it has a tid.

    `extension` is a JSON object in UTF-8 (b"" where there is none), or a pickle that came with a copied
    ZODB transaction: readers tell them apart by the first byte.
    """

    user: str = ""
    description: str = ""
    extension: bytes = b""


class Transaction(NamedTuple):
    """A committed transaction: its tid, that of the one before, its details and the oids that it wrote."""

    tid: Tid
    previous: Tid
    details: Details
    oids: tuple[Oid, ...]

    def __repr__(self) -> str:
        """Without the oids: there may be a million."""
        return f"Transaction(tid={self.tid!r}, previous={self.previous!r}, details={self.details!r})"

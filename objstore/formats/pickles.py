"""What a record says of its class and its references, found without loading it.

A record is two pickles one after the other: that of the class (a global, or a pair of it and the arguments
to create the object with) and that of the state; the second may use the memo of the first. Nothing here
imports a class or executes what a pickle asks for: `formats.walking` says how. Every fault of a record is a
`SerializationError`.
"""

from __future__ import annotations

from collections.abc import Callable

from objstore.errors import SerializationError
from objstore.formats.scanning import scanned
from objstore.formats.walking import Use, constant_of, first_of, walked
from objstore.ids import Oid

BLOB_CLASS = "ZODB.blob.Blob"
BLOB_RECORD = b"\x80\x03cZODB.blob\nBlob\nq\x00.\x80\x03N."
"""The record that every blob has: its class, and no state."""


def is_blob(data: bytes) -> bool:
    """Whether a record is that of a blob, however it was pickled."""
    if data == BLOB_RECORD:
        return True
    try:
        return b"ZODB.blob" in data[:64] and class_name(data) == BLOB_CLASS
    except SerializationError:
        return False


def references(data: bytes) -> bytes:
    """The oids that a record refers to strongly, packed, each once, in the order in which they appear.

    Weak references and those to other databases are left out. Raises `SerializationError`.
    """
    found = scanned(data)
    return found if found is not None else followed_references(data)


def followed_references(data: bytes) -> bytes:
    """The same, found opcode by opcode, of any record."""
    machine = walked(data)
    found = [machine.oid_at(symbol) for symbol in machine.strong]
    return b"".join(dict.fromkeys([data[at : at + 8] for at in found]))


def class_name(data: bytes) -> str:
    """The dotted name (`module.Name`) of the class of a record's object.

    Raises `SerializationError`, also where the class is itself a persistent object, which has no name here.
    """
    machine, symbol, _ = first_of(data)
    return machine.class_name(symbol)


def state_offset(data: bytes) -> int:
    """Where in a record the second pickle begins, that of the state. Raises `SerializationError`."""
    return first_of(data)[2]


def rewrite_references(data: bytes, mapping: Callable[[Oid], Oid]) -> bytes:
    """The same record with the oids of its references, strong and weak, replaced by what `mapping` gives.

    `mapping` is asked once for each oid. Nothing but the oids changes, except where one constant is both the
    oid of a reference and, through the memo, ordinary data: the data stays what it was, so the constant is
    written out a second time. References to other databases stay. Raises `SerializationError`.
    """
    uses: list[Use] = []
    machine = walked(data, uses)
    referring = machine.strong + machine.weak
    places = {constant_of(symbol): machine.oid_at(symbol) for symbol in referring}
    given: dict[Oid, Oid] = {}
    for at in places.values():
        old = Oid(data[at : at + 8])
        if old not in given:
            given[old] = mapping(old)
    new = {constant: given[Oid(data[at : at + 8])] for constant, at in places.items()}
    direct = {symbol for symbol in referring if isinstance(symbol, int)}
    taken = {symbol for symbol in referring if isinstance(symbol, Use)}
    edits: list[tuple[int, int, bytes]] = [(places[constant], 8, new[constant]) for constant in direct]
    for use in uses:
        constant = constant_of(use)
        if constant in places and (constant in direct) != (use in taken):
            at = places[constant]
            oid = new[constant] if use in taken else data[at : at + 8]
            edits.append((use.offset, use.size, data[constant:at] + oid))
            if machine.framed:
                raise SerializationError("an oid is shared with ordinary data inside a frame of the pickle")
    return _edited(data, edits)


def _edited(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """`data` with (offset, size) replaced by other bytes, for each of the edits."""
    parts = []
    end = 0
    for offset, size, replacement in sorted(edits):
        parts += [data[end:offset], replacement]
        end = offset + size
    return b"".join([*parts, data[end:]])

"""Exporting and importing a subgraph: an object, all it refers to, and so on.

The format is ZODB's (`ZODB.ExportImport`): `ZEXP`, then oid (8 bytes), length (8 bytes, big-endian) and
record of each object, the exported one first, then sixteen bytes of 0xff. On import every object gets a new
oid, and its references are rewritten in the record; nothing is loaded, no class imported.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import IO

from objstore.errors import POSKeyError, SerializationError
from objstore.formats import pickles
from objstore.ids import NO_TID, Oid, split_oids
from objstore.objects.savepoints import SavepointStore

MAGIC = b"ZEXP"
END = b"\xff" * 16
BLOB = b"\x00BLOBSTART"
MAX_RECORD = 2**32 - 1


def export_subgraph(load: Callable[[Oid], bytes], oid: Oid, file: IO[bytes]) -> int:
    """Write an object and all that is reachable from it to a file; how many objects.

    Memory is bounded by their number, not by their size. Raises POSKeyError where a reference leads nowhere.
    """
    file.write(MAGIC)
    seen = {oid}
    waiting = deque([(oid, oid)])
    while waiting:
        referrer, each = waiting.popleft()
        try:
            data = load(each)
        except POSKeyError as error:
            error.referrer = error.referrer or (referrer if referrer != each else None)
            raise
        file.write(each + len(data).to_bytes(8, "big") + data)
        for reference in split_oids(pickles.references(data)):
            if reference not in seen:
                seen.add(reference)
                waiting.append((each, reference))
    file.write(END)
    return len(seen)


class Importer:
    """Gives the objects of an export new oids."""

    def __init__(self, new_oid: Callable[[], Oid], created: Callable[[Oid], None]) -> None:
        self._new_oid = new_oid
        self._created = created
        self._oids: dict[Oid, Oid] = {}

    def read(self, file: IO[bytes], store: SavepointStore) -> Oid:
        """Write what a file holds to a store; the new oid of the exported object.

        `created` is told each new oid. Raises SerializationError where the file is not an export, is cut off,
        holds a blob, or lacks an object that it refers to; the store then has it in part, to be rolled back.
        """
        if file.read(len(MAGIC)) != MAGIC:
            raise SerializationError("this is no export: it does not begin with ZEXP")
        first: Oid | None = None
        held: set[Oid] = set()
        wanted: set[Oid] = set()
        while (head := _exactly(file, 16)) != END:
            if head.startswith(BLOB):
                raise SerializationError("the export holds a blob, which cannot be imported")
            oid = self._new(Oid(head[:8]))
            first = first or oid
            data = pickles.rewrite_references(_exactly(file, _length(head)), self._new)
            references = pickles.references(data)
            store.store(oid, NO_TID, data, references)
            self._created(oid)
            held.add(oid)
            wanted.update(split_oids(references))
        if first is None:
            raise SerializationError("the export holds no object")
        wanted -= held
        lacking = sorted(old.hex() for old, new in self._oids.items() if new in wanted)
        if lacking:
            raise SerializationError(f"the export refers to what it does not hold: {', '.join(lacking[:5])}")
        return first

    def _new(self, old: Oid) -> Oid:
        if old not in self._oids:
            self._oids[old] = self._new_oid()
        return self._oids[old]


def _length(head: bytes) -> int:
    length = int.from_bytes(head[8:], "big")
    if length > MAX_RECORD:
        raise SerializationError(f"the export is damaged: it announces a record of {length:,} bytes")
    return length


def _exactly(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise SerializationError("the export is cut off")
    return data

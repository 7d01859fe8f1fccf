"""Exporting and importing a subgraph: an object, all it refers to, and so on.

The format is ZODB's (`ZODB.ExportImport`): `ZEXP`, then oid (8 bytes), length (8 bytes, big-endian) and
record of each object, the exported one first, then sixteen bytes of 0xff. On import every object gets a new
oid, and its references are rewritten in the record; nothing is loaded, no class imported. Behind the record of a
blob stand a zero byte and `BLOBSTART`, the length of its data (8 bytes), and the data.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from io import SEEK_END, BufferedWriter, RawIOBase
from typing import IO, TYPE_CHECKING

from objstore.contracts import BlobFiles
from objstore.errors import POSKeyError, SerializationError
from objstore.formats import pickles
from objstore.ids import NO_TID, Oid, Tid, split_oids
from objstore.later import Later
from objstore.objects.savepoints import SavepointStore
from objstore.objects.scratch import temporary_file

if TYPE_CHECKING:
    import shutil
else:
    shutil = Later("shutil")

MAGIC = b"ZEXP"
END = b"\xff" * 16
BLOB = b"\x00BLOBSTART"
MAX_RECORD = 2**32 - 1
_PIECE = 2**20


Load = Callable[[Oid], tuple[bytes, Tid]]
OpenBlob = Callable[[Oid, Tid], RawIOBase]


def export_file(load: Load, open_blob: OpenBlob, oid: Oid, f: str | IO[bytes] | None) -> IO[bytes]:
    """Write an object and all that is reachable from it to a file, to a path or, if None, to a temporary file.

    The file, open, at its end. Raises what `export_subgraph` does, OSError.
    """
    if f is None or isinstance(f, str):
        # Open on return, for the caller to read.
        f = temporary_file("export") if f is None else open(f, "w+b")  # noqa: SIM115
    export_subgraph(load, open_blob, oid, f)
    return f


def export_subgraph(load: Load, open_blob: OpenBlob, oid: Oid, file: IO[bytes]) -> int:
    """Write an object and all that is reachable from it to a file; how many objects.

    `open_blob` opens the data of a blob. Memory is bounded by their number, not by their size. Raises POSKeyError
    where a reference leads nowhere.
    """
    file.write(MAGIC)
    seen = {oid}
    waiting = deque([(oid, oid)])
    while waiting:
        referrer, each = waiting.popleft()
        try:
            data, serial = load(each)
        except POSKeyError as error:
            error.referrer = error.referrer or (referrer if referrer != each else None)
            raise
        file.write(each + len(data).to_bytes(8, "big") + data)
        if pickles.is_blob(data):
            with open_blob(each, serial) as source:
                size = source.seek(0, SEEK_END)
                source.seek(0)
                file.write(BLOB + size.to_bytes(8, "big"))
                shutil.copyfileobj(source, file, _PIECE)
        for reference in split_oids(pickles.references(data)):
            if reference not in seen:
                seen.add(reference)
                waiting.append((each, reference))
    file.write(END)
    return len(seen)


class Importer:
    """Gives the objects of an export new oids."""

    def __init__(self, new_oid: Callable[[], Oid], blob_files: Callable[[], BlobFiles]) -> None:
        self._blob_files = blob_files
        self._new_oid = new_oid
        self._oids: dict[Oid, Oid] = {}

    def read(self, file: IO[bytes], store: SavepointStore, created: Callable[[Oid], None]) -> Oid:
        """Write what a file holds to a store; the new oid of the exported object.

        `created` is told each new oid. Raises SerializationError where the file is not an export, is cut off,
        or lacks an object that it refers to; the store then has it in part, to be rolled back.
        """
        if file.read(len(MAGIC)) != MAGIC:
            raise SerializationError("this is no export: it does not begin with ZEXP")
        first: Oid | None = None
        held: set[Oid] = set()
        wanted: set[Oid] = set()
        while (head := _exactly(file, 16)) != END:
            if head.startswith(BLOB):
                raise SerializationError("the export holds data of a blob behind an object that is none")
            oid = self._new(Oid(head[:8]))
            first = first or oid
            data = pickles.rewrite_references(_exactly(file, _length(head)), self._new)
            references = pickles.references(data)
            if pickles.is_blob(data):
                store.store_blob(oid, NO_TID, data, references, self._blob(file))
            else:
                store.store(oid, NO_TID, data, references)
            created(oid)
            held.add(oid)
            wanted.update(split_oids(references))
        if first is None:
            raise SerializationError("the export holds no object")
        wanted -= held
        lacking = sorted(old.hex() for old, new in self._oids.items() if new in wanted)
        if lacking:
            raise SerializationError(f"the export refers to what it does not hold: {', '.join(lacking[:5])}")
        return first

    def _blob(self, file: IO[bytes]) -> str:
        """A temporary file with the data of the blob that follow."""
        if _exactly(file, len(BLOB)) != BLOB:
            raise SerializationError("the export lacks the data of a blob")
        size = int.from_bytes(_exactly(file, 8), "big")
        files = self._blob_files()
        path = files.temporary()
        try:
            with files.open(path, "w") as raw, BufferedWriter(raw, _PIECE) as target:
                while size:
                    size -= target.write(_exactly(file, min(size, _PIECE)))
        except BaseException:
            files.discard(path)
            raise
        return path

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

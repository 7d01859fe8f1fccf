"""Objects to records.

A record is two pickles, protocol 3: the class (or the pair of it and `__getnewargs__()`), then the state. A
reference to another persistent object is a persistent id: `(oid, class)`, so that loading makes a ghost
without looking it up; the oid alone, where the class has `__getnewargs__`; `['w', (oid,)]` for a
`persistent.wref.WeakRef`. These are ZODB's records (`ZODB.serialize` describes them), read and written by
either. `reading` is the way back.

Most states refer to nothing, and asking for a persistent id of every string in them would take most of the
time. So a state is first pickled without asking: the C pickler tells of what is neither a string, a number
nor a plain container, and if that is a reference, the state is pickled once more, asking. Classes of which
the last object had references are asked at once.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from io import BytesIO
from typing import Any, ClassVar, NamedTuple, Protocol

from persistent import Persistent
from persistent.wref import WeakRef

from objstore.errors import SerializationError
from objstore.formats.pickles import BLOB_CLASS, BLOB_RECORD
from objstore.ids import Oid
from objstore.objects.blobs import Blob
from objstore.objects.broken import StandInPickler, any_stand_ins, name_of

PROTOCOL = 3
_OUR_BLOB = f"c{Blob.__module__}\nBlob\n".encode()
_ZODBS_BLOB = b"cZODB.blob\nBlob\n"
_PICKLING_FAILS = (pickle.PicklingError, TypeError, AttributeError, ValueError, RecursionError)


class WritersJar(Protocol):
    """What writing objects needs of their connection."""

    database_name: str

    def adopt(self, obj: Persistent) -> Oid:
        """Give a new object its oid; it will be stored in this transaction."""


class _AskingPickler(pickle.Pickler):
    def __init__(self, file: BytesIO, persistent_id: Callable[[Any], Any]) -> None:
        super().__init__(file, PROTOCOL)
        self._persistent_id = persistent_id

    def persistent_id(self, obj: Any) -> Any:
        return self._persistent_id(obj)


class _SlowPickler(StandInPickler):
    def __init__(self, file: BytesIO, persistent_id: Callable[[Any], Any]) -> None:
        super().__init__(file, PROTOCOL)
        self._persistent_id = persistent_id

    def persistent_id(self, obj: Any) -> Any:
        return self._persistent_id(obj)

    def save_global(self, obj: Any, name: str | None = None) -> None:
        if obj is not Blob:
            super().save_global(obj, name)
            return
        self.write(_ZODBS_BLOB)
        self.memoize(obj)

    dispatch: ClassVar[dict[type, Any]] = {**StandInPickler.dispatch, type: save_global}


class RecordPickler:
    """Writes records, reusing one pickler. `persistent_id` is asked for every object in them."""

    def __init__(self, persistent_id: Callable[[Any], Any]) -> None:
        self._persistent_id = persistent_id
        self._file = BytesIO()
        self._pickler = _AskingPickler(self._file, persistent_id)

    def dump(self, meta: Any, state: Any) -> bytes:
        """A record. The second pickle uses the memo of the first, as in ZODB."""
        self._file.seek(0)
        self._file.truncate()
        self.forget()
        try:
            self._pickler.dump(meta)
            self._pickler.dump(state)
        except pickle.PicklingError:
            if not any_stand_ins():
                raise
            return self._dump_slowly(meta, state)
        data = self._file.getvalue()
        return data if _OUR_BLOB not in data else self._dump_slowly(meta, state)

    def forget(self) -> None:
        """Let go of what was written last."""
        self._pickler.clear_memo()

    def _dump_slowly(self, meta: Any, state: Any) -> bytes:
        file = BytesIO()
        pickler = _SlowPickler(file, self._persistent_id)
        pickler.dump(meta)
        pickler.dump(state)
        return file.getvalue()


# --- writing -----------------------------------------------------------------------------------------


class _ReferenceFoundError(Exception):
    """There is a reference in a state that was pickled as if there were none."""


class _Chunks:
    """What a reused pickler writes to."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self.write = write


class _PlainPickler(pickle.Pickler):
    """Pickles what has no references as a pickler does that asks for them. Raises _ReferenceFoundError."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, (Persistent, WeakRef)):
            raise _ReferenceFoundError
        return NotImplemented


_PLAIN = frozenset((bool, bytes, complex, dict, float, frozenset, int, list, set, str, tuple, type, type(None)))
"""Types that are surely no references: most of what is asked for."""


class _ReferringPickler(pickle.Pickler):
    """Asks `refer` for the persistent ids of all that may be referred to."""

    def __init__(self, file: Any, refer: Callable[[Any, type], Any]) -> None:
        super().__init__(file, PROTOCOL)
        self._refer = refer

    def persistent_id(self, obj: Any) -> Any:
        cls = type(obj)
        if cls in _PLAIN or not isinstance(obj, (Persistent, WeakRef)):
            return None
        return self._refer(obj, cls)


_BEGIN = 2
"""How many bytes a pickle has before its first value."""
_TAKING = {ord("h"): 2, ord("j"): 5}
"""The opcodes that take a value from the memo, and their sizes."""


class _Opening(NamedTuple):
    """How the records of a class begin: the pickle that names it, and the memo once that was written."""

    pickle: bytes
    memo: Any
    module: dict[str, Any]
    name: str
    """Where the class is found, so that none is written that has been replaced since."""


class ObjectWriter:
    """Writes the objects of one connection."""

    def __init__(self, jar: WritersJar) -> None:
        self._jar = jar
        self._references: dict[Oid, None] = {}
        self._any = RecordPickler(self._persistent_id)
        self._openings: dict[type, _Opening] = {}
        self._referring: set[type] = set()  # classes whose last object referred to others
        self._refers_to_blobs = False
        self._chunks: list[bytes] = []
        chunks: Any = _Chunks(self._chunks.append)
        self._plain = _PlainPickler(chunks, PROTOCOL)
        self._asking = _ReferringPickler(chunks, self._reference)

    def serialize(self, obj: Persistent) -> tuple[bytes, bytes]:
        """An object's record, and the oids that it refers to strongly, packed, each once.

        New objects that it refers to are given to `Jar.adopt`. Raises SerializationError, and whatever the
        object's `__getstate__` raises.
        """
        cls = type(obj)
        opening = self._openings.get(cls)
        if opening is None or opening.module.get(opening.name) is not cls:
            return self._first(obj, cls)
        state = obj.__getstate__()
        chunks = self._chunks
        chunks.clear()
        chunks.append(opening.pickle)
        if cls not in self._referring:
            plain = self._plain
            plain.memo = opening.memo  # a copy of it
            try:
                plain.dump(state)
            except _ReferenceFoundError:
                del chunks[1:]
            except _PICKLING_FAILS:  # the other way tells what is wrong, and knows a remedy for some of it
                return self._anything(obj, cls, state)
            else:
                return b"".join(chunks), b""
        return self._with_references(obj, cls, state, opening)

    def forget(self) -> None:
        """Let go of what was written last: a pickler keeps it alive until it writes something else."""
        self._any.forget()
        self._plain.clear_memo()
        self._asking.clear_memo()

    def _with_references(self, obj: Persistent, cls: type, state: Any, opening: _Opening) -> tuple[bytes, bytes]:
        references, asking = self._references, self._asking
        references.clear()
        self._refers_to_blobs = False
        try:
            if type(state) is not tuple or not self._dump_leaf(state, opening):
                asking.memo = opening.memo
                asking.dump(state)
        except _PICKLING_FAILS:
            return self._anything(obj, cls, state)
        (self._referring.add if references else self._referring.discard)(cls)
        data = b"".join(self._chunks)
        if self._refers_to_blobs:
            # A pickle names a class once. If the name is there again, some of that is data that looks like it.
            if data.count(_OUR_BLOB) != 1:
                return self._anything(obj, cls, state)
            data = data.replace(_OUR_BLOB, _ZODBS_BLOB)
        return data, b"".join(references)

    def _dump_leaf(self, state: tuple[Any, ...], opening: _Opening) -> bool:
        """Pickle the state of a leaf of a BTree, if it is one whose keys and values refer to nothing.

        It is a tuple of these and of the next leaf. They are pickled without asking; the whole then finds them
        in the memo, and where it takes them from there, they are put. The bytes are those of pickling it at once.
        """
        items = state[0] if 1 <= len(state) <= 2 else None
        if type(items) is not tuple or not items:  # an empty tuple is in no memo
            return False
        chunks, plain, asking = self._chunks, self._plain, self._asking
        plain.memo = opening.memo
        try:
            plain.dump(items)
        except _ReferenceFoundError:
            del chunks[1:]
            return False
        asking.memo = plain.memo
        end = len(chunks)
        asking.dump(state)
        rest = b"".join(chunks[end:])
        size = _TAKING.get(rest[_BEGIN])
        if size is None:
            del chunks[1:]
            return False
        chunks[end:] = [rest[_BEGIN + size :]]
        chunks[end - 1] = chunks[end - 1][:-1]  # not the end any more
        return True

    def _first(self, obj: Persistent, cls: type) -> tuple[bytes, bytes]:
        """As `serialize`, for an object whose class is not known, or must be written with arguments."""
        if cls is Blob:
            return BLOB_RECORD, b""
        if name_of(cls) == BLOB_CLASS:
            raise SerializationError(
                "it is ZODB's own; make an objstore.Blob, which is stored the same", obj._p_oid, BLOB_CLASS
            )
        new_arguments = getattr(obj, "__getnewargs__", None)
        meta = cls if new_arguments is None else (cls, new_arguments())
        written = self._anything(obj, meta, obj.__getstate__())
        module = getattr(sys.modules.get(cls.__module__), "__dict__", {})
        if meta is cls and module.get(cls.__name__) is cls:
            chunks: list[bytes] = []
            file: Any = _Chunks(chunks.append)
            pickler = pickle.Pickler(file, PROTOCOL)
            pickler.dump(cls)
            self._openings[cls] = _Opening(b"".join(chunks), pickler.memo, module, cls.__name__)
        return written

    def _anything(self, obj: Persistent, meta: Any, state: Any) -> tuple[bytes, bytes]:
        """As `serialize`, without relying on anything but the object. Raises SerializationError."""
        self._references.clear()
        try:
            data = self._any.dump(meta, state)
        except _PICKLING_FAILS as error:
            reason = f"its state cannot be pickled: {error}"
            raise SerializationError(reason, obj._p_oid, name_of(type(obj))) from error
        return data, b"".join(self._references)

    def _persistent_id(self, obj: Any) -> Any:
        return self._reference(obj, type(obj)) if isinstance(obj, (Persistent, WeakRef)) else None

    def _reference(self, obj: Any, cls: type) -> Any:
        """The persistent id of an object, or of a weak reference."""
        if isinstance(obj, WeakRef):
            return self._weak_reference(obj)
        oid = obj._p_oid
        jar = obj._p_jar
        if oid is None and jar is None:
            oid = self._jar.adopt(obj)
        elif oid is None or jar is not self._jar:
            oid = self._oid_of(obj)
        self._references[oid] = None
        if cls is Blob:
            self._refers_to_blobs = True
        return oid if hasattr(cls, "__getnewargs__") else (oid, cls)

    def _oid_of(self, obj: Persistent) -> Oid:
        if obj._p_jar is self._jar and obj._p_oid is not None:
            return Oid(obj._p_oid)
        if obj._p_jar is None and obj._p_oid is None:
            return self._jar.adopt(obj)
        if isinstance(obj._p_jar, LostState):
            obj._p_jar.setstate(obj)
        raise SerializationError(
            "it belongs to another connection; load it through this one", obj._p_oid, name_of(type(obj))
        )

    def _weak_reference(self, reference: WeakRef) -> list[Any]:
        target = vars(reference).get("_v_ob")
        if target is not None:  # it may have been new, or given up and stored anew, since the reference was made
            reference.oid = self._oid_of(target)
            reference.dm = self._jar
            reference.database_name = self._jar.database_name
        if reference.dm is not self._jar:
            raise SerializationError("a weak reference leads to an object of another connection", reference.oid)
        return ["w", (reference.oid,)]


class LostState:
    """The jar of ghosts whose state was given up with the transaction, or savepoint, that created them.

    Without it they would look like new, empty objects, and could be stored as such.
    """

    def setstate(self, obj: Persistent) -> None:
        reason = "it was created in a transaction or savepoint that was undone, and its state is gone"
        raise SerializationError(reason, obj._p_oid, name_of(type(obj)))

    def register(self, obj: Persistent) -> None:
        self.setstate(obj)

"""Objects to records and back.

A record is two pickles, protocol 3: the class (or the pair of it and `__getnewargs__()`), then the state. A
reference to another persistent object is a persistent id: `(oid, class)`, so that loading makes a ghost
without looking it up; the oid alone, where the class has `__getnewargs__`; `['w', (oid,)]` for a
`persistent.wref.WeakRef`. These are ZODB's records (`ZODB.serialize` describes them), read and written by
either.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any, Protocol

from persistent import Persistent
from persistent.wref import WeakRef
from transaction.interfaces import TransientError

from objstore.errors import ObjstoreError, POSKeyError, SerializationError
from objstore.ids import Oid
from objstore.objects.broken import (
    Broken,
    BrokenPersistentWithArguments,
    StandInPickler,
    any_stand_ins,
    name_of,
    persistent_stand_in,
)
from objstore.objects.classes import ClassFinder

PROTOCOL = 3
_OUR_OWN = (ObjstoreError, TransientError)
"""Errors that say enough by themselves."""


class Jar(Protocol):
    """What reading and writing objects needs of their connection."""

    database_name: str

    def __getitem__(self, oid: Oid) -> Persistent:
        """The object with this oid, loaded no further than its class."""

    def cached(self, oid: Oid) -> Persistent | None:
        """The object with this oid, if this connection has it already."""

    def new_ghost(self, oid: Oid, ghost: Persistent) -> None:
        """Adopt a ghost."""

    def adopt(self, obj: Persistent) -> Oid:
        """Give a new object its oid; it will be stored in this transaction."""


class RecordUnpickler(pickle.Unpickler):
    """Reads both pickles of a record. What they refer to, and by which class, others decide."""

    def __init__(self, data: bytes, finder: ClassFinder, refer: Callable[[Any], Any], oid: Oid | None) -> None:
        finder.require_no_codes(oid, data)
        super().__init__(io.BytesIO(data), encoding="bytes")
        self._finder = finder
        self._oid = oid
        self._refer = refer

    def find_class(self, module: str, name: str) -> Any:
        return self._finder.find(self._oid, module, name)

    def persistent_load(self, reference: Any) -> Any:
        return self._refer(reference)


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, persistent_id: Callable[[Any], Any]) -> None:
        super().__init__(file, PROTOCOL)
        self._persistent_id = persistent_id

    def persistent_id(self, obj: Any) -> Any:
        return self._persistent_id(obj)


class _SlowPickler(StandInPickler):
    def __init__(self, file: io.BytesIO, persistent_id: Callable[[Any], Any]) -> None:
        super().__init__(file, PROTOCOL)
        self._persistent_id = persistent_id

    def persistent_id(self, obj: Any) -> Any:
        return self._persistent_id(obj)


class RecordPickler:
    """Writes records, reusing one pickler. `persistent_id` is asked for every object in them."""

    def __init__(self, persistent_id: Callable[[Any], Any]) -> None:
        self._persistent_id = persistent_id
        self._file = io.BytesIO()
        self._pickler = _Pickler(self._file, persistent_id)

    def dump(self, meta: Any, state: Any) -> bytes:
        """A record. The second pickle uses the memo of the first, as in ZODB."""
        self._file.seek(0)
        self._file.truncate()
        self._pickler.clear_memo()
        try:
            self._pickler.dump(meta)
            self._pickler.dump(state)
        except pickle.PicklingError:
            if not any_stand_ins():
                raise
            return self._dump_slowly(meta, state)
        return self._file.getvalue()

    def _dump_slowly(self, meta: Any, state: Any) -> bytes:
        file = io.BytesIO()
        pickler = _SlowPickler(file, self._persistent_id)
        pickler.dump(meta)
        pickler.dump(state)
        return file.getvalue()


# --- writing -----------------------------------------------------------------------------------------


class ObjectWriter:
    """Writes the objects of one connection."""

    def __init__(self, jar: Jar) -> None:
        self._jar = jar
        self._references: dict[Oid, None] = {}
        self._pickler = RecordPickler(self._persistent_id)

    def serialize(self, obj: Persistent) -> tuple[bytes, bytes]:
        """An object's record, and the oids that it refers to strongly, packed, each once.

        New objects that it refers to are given to `Jar.adopt`. Raises SerializationError, and whatever the
        object's `__getstate__` raises.
        """
        self._references.clear()
        meta, state = _class_of(obj), obj.__getstate__()
        try:
            data = self._pickler.dump(meta, state)
        except (pickle.PicklingError, TypeError, AttributeError, ValueError, RecursionError) as error:
            reason = f"its state cannot be pickled: {error}"
            raise SerializationError(reason, obj._p_oid, name_of(type(obj))) from error
        return data, b"".join(self._references)

    def _persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, (Persistent, WeakRef)):  # asked for everything in every record
            return None
        if isinstance(obj, WeakRef):
            return self._weak_reference(obj)
        oid = self._oid_of(obj)
        self._references[oid] = None
        cls = type(obj)
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


def _class_of(obj: Persistent) -> Any:
    new_arguments = getattr(obj, "__getnewargs__", None)
    return type(obj) if new_arguments is None else (type(obj), new_arguments())


class LostState:
    """The jar of ghosts whose state was given up with the transaction, or savepoint, that created them.

    Without it they would look like new, empty objects, and could be stored as such.
    """

    def setstate(self, obj: Persistent) -> None:
        reason = "it was created in a transaction or savepoint that was undone, and its state is gone"
        raise SerializationError(reason, obj._p_oid, name_of(type(obj)))

    def register(self, obj: Persistent) -> None:
        self.setstate(obj)


# --- what records say --------------------------------------------------------------------------------


def split_class(meta: Any, finder: ClassFinder, oid: Oid | None) -> tuple[Any, tuple[Any, ...] | None]:
    """The class of the first pickle of a record, and the arguments to create an object with, if it has any."""
    if not isinstance(meta, tuple):
        return meta, None
    cls, arguments = meta
    if isinstance(cls, tuple):  # a class by its name, in old records
        cls = finder.find(oid, *cls)
    return cls, arguments


def weak_oid(reference: Any, database_name: str) -> Oid:
    """The oid in a reference that is written as a list: `['w', (oid,)]`, or `[oid]` in old records.

    Raises SerializationError for references to other databases.
    """
    match reference:
        case [bytes(oid)] if len(oid) == 8:
            return Oid(oid)
        case ["w" | b"w", (bytes(oid),)]:
            return Oid(oid)
        case ["w" | b"w", (bytes(oid), str(name))] if name == database_name:
            return Oid(oid)
        case ["m" | "n" | "w" | b"m" | b"n" | b"w", (*_,)]:
            raise SerializationError(f"a reference to another database, which is not supported: {reference!r}")
    raise SerializationError(f"a reference in an unknown form: {reference!r}")


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


# --- reading -----------------------------------------------------------------------------------------


class ObjectReader:
    """Reads the objects of one connection."""

    def __init__(self, jar: Jar, finder: ClassFinder) -> None:
        self._jar = jar
        self._finder = finder

    def ghost(self, oid: Oid, data: bytes) -> Persistent:
        """An object of a record's class, without its state.

        Raises ClassNotAllowedError, SerializationError.
        """
        try:
            cls, arguments = split_class(self._unpickler(oid, data).load(), self._finder, oid)
            if issubclass(cls, Broken):
                cls, arguments = persistent_stand_in(cls, has_arguments=arguments is not None), ()
            ghost = cls.__new__(cls, *(arguments or ()))
        except _OUR_OWN:
            raise
        except Exception as error:
            raise SerializationError(f"its class cannot be loaded: {_told(error)}", oid) from error
        if not isinstance(ghost, Persistent):
            raise SerializationError("its class is not a persistent one", oid, name_of(type(ghost)))
        return ghost

    def state(self, oid: Oid, data: bytes) -> Any:
        """The state that a record holds. Raises ClassNotAllowedError, SerializationError."""
        return self._load(oid, data)[1]

    def set_state(self, obj: Persistent, data: bytes) -> None:
        """Give an object the state that its record holds. Raises what `state` does."""
        oid = Oid(obj._p_oid)
        meta, state = self._load(oid, data)
        try:
            obj.__setstate__(state)
            if isinstance(obj, BrokenPersistentWithArguments):
                obj.keep_arguments(meta[1])
        except _OUR_OWN:
            raise
        except Exception as error:
            reason = f"its state does not fit its class: {_told(error)}"
            raise SerializationError(reason, oid, name_of(type(obj))) from error

    def _load(self, oid: Oid, data: bytes) -> tuple[Any, Any]:
        unpickler = self._unpickler(oid, data)
        try:
            return unpickler.load(), unpickler.load()
        except _OUR_OWN:
            raise
        except Exception as error:
            raise SerializationError(f"its record cannot be loaded: {_told(error)}", oid) from error

    def _unpickler(self, oid: Oid, data: bytes) -> RecordUnpickler:
        def refer(reference: Any) -> Any:
            return self._refer(oid, reference)

        return RecordUnpickler(data, self._finder, refer, oid)

    def _refer(self, referrer: Oid, reference: Any) -> Any:
        """What stands in a state for a persistent id."""
        if isinstance(reference, tuple):
            return self._ghost_of(referrer, *reference)
        if isinstance(reference, bytes):
            return self._referred(referrer, Oid(reference))
        return self._weak(weak_oid(reference, self._jar.database_name))

    def _ghost_of(self, referrer: Oid, oid: Oid, cls: Any) -> Persistent:
        known = self._jar.cached(oid)
        if known is not None:
            return known
        if isinstance(cls, tuple):
            cls = self._finder.find(oid, *cls)
        if issubclass(cls, Broken):
            cls = persistent_stand_in(cls, has_arguments=False)
        try:
            ghost = cls.__new__(cls)
        except TypeError:  # by now its class wants arguments: they are in its record
            return self._referred(referrer, oid)
        self._jar.new_ghost(oid, ghost)
        return ghost

    def _referred(self, referrer: Oid, oid: Oid) -> Persistent:
        try:
            return self._jar[oid]
        except POSKeyError as error:
            error.referrer = error.referrer or referrer
            raise

    def _weak(self, oid: Oid) -> WeakRef:
        reference = WeakRef.__new__(WeakRef)
        reference.oid = oid
        reference.dm = self._jar
        reference.database_name = self._jar.database_name
        return reference

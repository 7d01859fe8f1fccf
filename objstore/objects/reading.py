"""Records to objects.

One unpickler serves all the records of a connection: making one costs more than a small state does. Nor is
the class read again that an object has already: where a record begins with the bytes that have named that
class before, only its state is read, with the memo that reading the class would have left.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from io import BytesIO
from typing import Any, NamedTuple, Protocol

from persistent import Persistent, PickleCache
from persistent.wref import WeakRef
from transaction.interfaces import TransientError

from objstore.errors import ObjstoreError, POSKeyError, SerializationError
from objstore.ids import ROOT, Oid
from objstore.objects.broken import Broken, BrokenPersistentWithArguments, name_of, persistent_stand_in
from objstore.objects.classes import ClassFinder

_Refer = Callable[[Oid, Any], Any]
"""Gives what stands in the state of the object that is named first for a persistent id."""
_OUR_OWN = (ObjstoreError, TransientError)
"""Errors that say enough by themselves."""


class ReadersJar(Protocol):
    """What reading objects needs of their connection."""

    database_name: str
    named: dict[Oid, Persistent]
    """New objects that were not written yet."""

    def __getitem__(self, oid: Oid) -> Persistent:
        """The object with this oid, loaded no further than its class."""

    def cached(self, oid: Oid) -> Persistent | None:
        """The object with this oid, if this connection has it already."""

    def new_ghost(self, oid: Oid, ghost: Persistent) -> None:
        """Adopt a ghost."""


class RecordUnpickler(pickle.Unpickler):
    """Reads both pickles of a record. What they refer to, and by which class, others decide."""

    def __init__(self, data: bytes, finder: ClassFinder, refer: Callable[[Any], Any], oid: Oid | None) -> None:
        finder.require_no_codes(oid, data)
        self._file = BytesIO(data)
        super().__init__(self._file, encoding="bytes")
        self._finder = finder
        self._oid = oid
        self._refer = refer

    @property
    def position(self) -> int:
        """Where the next pickle begins."""
        return self._file.tell()

    def find_class(self, module: str, name: str) -> Any:
        return self._finder.find(self._oid, module, name)

    def persistent_load(self, reference: Any) -> Any:
        return self._refer(reference)


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


class _Opening(NamedTuple):
    """How the records of a class begin: the pickle that names it, and the memo once that was read."""

    pickle: bytes
    memo: Any


class _Source:
    """What a reused unpickler reads from: the rest of one record.

    The unpickler looks at all of it (`peek`), and tells in the end how much it took (`read`).
    """

    __slots__ = ("rest", "taken")

    def __init__(self) -> None:
        self.rest = b""
        self.taken = 0

    def peek(self, _size: int) -> bytes:
        return self.rest[self.taken :] if self.taken else self.rest

    def read(self, size: int) -> bytes:
        begin, self.taken = self.taken, self.taken + size
        return self.rest[begin : self.taken]

    def readline(self) -> bytes:
        end = self.rest.find(b"\n", self.taken) + 1
        return self.read((end or len(self.rest)) - self.taken)


class _StateUnpickler(pickle.Unpickler):
    """Reads states, one after the other, whose records begin as known. Made by `ObjectReader`."""

    def __init__(self, finder: ClassFinder, jar: ReadersJar, cache: PickleCache, refer: _Refer) -> None:
        self._source = _Source()
        super().__init__(self._source, encoding="bytes")
        self._finder = finder
        self._named = jar.named
        self._known = cache.get
        self._new_ghost = cache.new_ghost
        self._refer = refer
        self._real: set[type] = set()  # classes of ghosts that were made without further ado
        self._oid = ROOT
        self._memo: Any = None
        self.usable = True
        """False while it reads, and for good if that failed: its buffer and its memo are unknown then."""

    def state(self, oid: Oid, data: bytes, opening: _Opening) -> Any:
        """The state in a record that begins with `opening`."""
        self.usable = False
        if self._memo is not opening.memo:
            self._memo = self.memo = opening.memo
        source = self._source
        source.rest = rest = data[len(opening.pickle) :]
        source.taken = 0
        self._oid = oid
        state = self.load()
        self.memo = opening.memo  # a copy: nothing of this state is kept alive by it, or shows in the next
        self.usable = source.taken == len(rest)
        return state

    def find_class(self, module: str, name: str) -> Any:
        return self._finder.find(self._oid, module, name)

    def persistent_load(self, reference: Any) -> Any:
        if type(reference) is tuple:
            oid, cls = reference
            known = self._known(oid)
            if known is not None:
                return known
            if cls in self._real and not self._named:
                try:
                    ghost = cls.__new__(cls)
                except TypeError:  # by now its class wants arguments, so this takes another way
                    self._real.discard(cls)
                else:
                    self._new_ghost(oid, ghost)
                    return ghost
            found = self._refer(self._oid, reference)
            if type(found) is cls:
                self._real.add(cls)
            return found
        return self._refer(self._oid, reference)


class ObjectReader:
    """Reads the objects of one connection."""

    def __init__(self, jar: ReadersJar, cache: PickleCache, finder: ClassFinder) -> None:
        self._jar = jar
        self._cache = cache
        self._finder = finder
        self._openings: dict[type, _Opening] = {}
        self._states = self._state_unpickler()

    def _state_unpickler(self) -> _StateUnpickler:
        return _StateUnpickler(self._finder, self._jar, self._cache, self._refer)

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
        return self._load(oid, data, None)[1]

    def set_state(self, obj: Persistent, data: bytes) -> None:
        """Give an object the state that its record holds. Raises what `state` does."""
        oid: Oid = obj._p_oid
        cls = type(obj)
        opening = self._openings.get(cls)
        # States may load others while they are loaded, by methods of what they hold.
        if opening is not None and self._states.usable and data.startswith(opening.pickle):
            meta, state = cls, self._state(oid, data, opening)
        else:
            meta, state = self._load(oid, data, cls)
        try:
            obj.__setstate__(state)
            if isinstance(obj, BrokenPersistentWithArguments):
                obj.keep_arguments(meta[1])
        except _OUR_OWN:
            raise
        except Exception as error:
            reason = f"its state does not fit its class: {_told(error)}"
            raise SerializationError(reason, oid, name_of(type(obj))) from error

    def _state(self, oid: Oid, data: bytes, opening: _Opening) -> Any:
        """What `_load` gives, of a record that begins as others of its class did."""
        states = self._states
        if self._finder.limited:
            self._finder.require_no_codes(oid, data)
        try:
            return states.state(oid, data, opening)
        except _OUR_OWN:
            raise
        except Exception as error:
            raise SerializationError(f"its record cannot be loaded: {_told(error)}", oid) from error
        finally:
            if not states.usable:
                self._states = self._state_unpickler()

    def _load(self, oid: Oid, data: bytes, cls: type | None) -> tuple[Any, Any]:
        """Both pickles. How the record begins is remembered where it names `cls` and no more."""
        unpickler = self._unpickler(oid, data)
        try:
            meta = unpickler.load()
            if meta is cls is not None:
                self._openings[cls] = self._opening(oid, data[: unpickler.position])
            return meta, unpickler.load()
        except _OUR_OWN:
            raise
        except Exception as error:
            raise SerializationError(f"its record cannot be loaded: {_told(error)}", oid) from error

    def _opening(self, oid: Oid, first: bytes) -> _Opening:
        unpickler = self._unpickler(oid, first)
        unpickler.load()
        return _Opening(first, unpickler.memo)

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

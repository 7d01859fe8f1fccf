"""Stand-ins for classes that cannot be imported, so that data outlives the code it was written with.

What a pickle calls by a missing name loads as an instance of a stand-in. It keeps what the pickle said: how
it was constructed (by `__new__` alone, or by a call), with which arguments, its state, list and dictionary
items; and it is pickled back as the very same construction of the very same global. The C pickler refuses
names that it cannot import, so `StandInPickler` exists for the records that need it.

Persistent objects whose class is missing are stored back as they are. None of them can be modified.
"""

from __future__ import annotations

import copyreg
import pickle
from collections.abc import Iterable
from threading import Lock
from typing import Any, ClassVar

from persistent import Persistent

from objstore.errors import BrokenModifiedError

# What the stubs of the standard library leave out.
_reconstructor: Any = vars(copyreg)["_reconstructor"]
_new_object: Any = vars(copyreg)["__newobj__"]
_PythonPickler: Any = vars(pickle)["_Pickler"]


class _Construction:
    """What a pickle said about an instance of a missing class."""

    __slots__ = ("arguments", "called", "factory", "items", "pairs", "state")

    def __init__(self, arguments: tuple[Any, ...]) -> None:
        self.arguments = arguments
        self.called = False
        self.factory: Any = None
        self.state: Any = None
        self.items: list[Any] = []
        self.pairs: list[tuple[Any, Any]] = []


class Broken:
    """An instance of a missing class inside another object's state; the base of its stand-ins.

    `__Broken_state__` shows its state to tools.
    """

    __slots__ = ("_construction",)
    _construction: _Construction

    def __new__(cls, *arguments: Any) -> Broken:
        self = object.__new__(cls)
        object.__setattr__(self, "_construction", _Construction(arguments))
        return self

    def __init__(self, *_arguments: Any) -> None:  # only a call of the class gets here, NEWOBJ does not
        self._construction.called = True

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        made = self._construction
        cls = type(self)
        if made.factory is not None:
            how = (made.factory, (cls, *made.arguments))
        elif made.called:
            how = (cls, made.arguments)
        else:
            how = (_new_object, (cls, *made.arguments))
        return (*how, made.state, iter(made.items) if made.items else None, iter(made.pairs) or None)

    def __setstate__(self, state: Any) -> None:
        self._construction.state = state

    def extend(self, items: Iterable[Any]) -> None:
        """Take the items of a missing subclass of list, as unpickling gives them."""
        self._construction.items.extend(items)

    def append(self, item: Any) -> None:
        self._construction.items.append(item)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._construction.pairs.append((key, value))

    @property
    def __Broken_state__(self) -> Any:
        return self._construction.state

    def __setattr__(self, name: str, value: Any) -> None:
        raise BrokenModifiedError(name_of(type(self)))

    def __delattr__(self, name: str) -> None:
        raise BrokenModifiedError(name_of(type(self)))

    def __repr__(self) -> str:
        return f"<broken {name_of(type(self))}>"


class BrokenPersistent(Persistent):
    """A persistent object whose class is missing; the base of its stand-ins.

    Its state is that of its record, whatever that is, and shown by `__Broken_state__`.
    """

    def __getstate__(self) -> Any:
        return self.__dict__.get("_broken_state")

    def __setstate__(self, state: Any) -> None:
        self.__dict__["_broken_state"] = state

    @property
    def __Broken_state__(self) -> Any:
        self._p_activate()
        return self.__getstate__()

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith(("_p_", "_v_")):
            raise BrokenModifiedError(name_of(type(self)), self._p_oid)
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if not name.startswith(("_p_", "_v_")):
            raise BrokenModifiedError(name_of(type(self)), self._p_oid)
        super().__delattr__(name)

    def __repr__(self) -> str:
        return f"<broken {name_of(type(self))} {self._p_oid.hex() if self._p_oid else 'without oid'}>"


class BrokenPersistentWithArguments(BrokenPersistent):
    """One whose record says arguments to create it with: it is referred to by oid only."""

    def __getnewargs__(self) -> tuple[Any, ...]:
        self._p_activate()
        return tuple(self.__dict__["_broken_arguments"])

    def keep_arguments(self, arguments: tuple[Any, ...]) -> None:
        """Remember what the record says. Ghosts forget it, and learn it again with their state."""
        self.__dict__["_broken_arguments"] = arguments


def reconstruct(cls: Any, base: type, state: Any) -> Any:
    """`copyreg._reconstructor`, which knows stand-ins: they have no base to be made from."""
    if not is_stand_in(cls):
        return _reconstructor(cls, base, state)
    made = cls.__new__(cls, base, state)
    made._construction.factory = _reconstructor
    return made


_BASES = (Broken, BrokenPersistent, BrokenPersistentWithArguments)


class _Registry:
    """The stand-ins of this process: one for each missing name and base, whoever misses it."""

    def __init__(self) -> None:
        self._classes: dict[tuple[type, str, str], type] = {}
        self._lock = Lock()

    def get(self, base: type, module: str, name: str) -> type:
        with self._lock:
            key = (base, module, name)
            if key not in self._classes:
                body = {"__module__": module, "__qualname__": name, "__slots__": ()}
                if base is not Broken:
                    del body["__slots__"]
                self._classes[key] = type(name.rpartition(".")[2], (base,), body)
            return self._classes[key]

    def __bool__(self) -> bool:
        return bool(self._classes)


_registry = _Registry()


def stand_in(module: str, name: str) -> type[Broken]:
    """The stand-in for whatever has this name. Always the same one for a name."""
    return _registry.get(Broken, module, name)


def persistent_stand_in(cls: type, *, has_arguments: bool) -> type[BrokenPersistent]:
    """The stand-in for persistent objects of a missing class, given any stand-in for it."""
    base = BrokenPersistentWithArguments if has_arguments else BrokenPersistent
    return _registry.get(base, cls.__module__, cls.__qualname__)


def is_stand_in(value: object) -> bool:
    """Whether a value is a stand-in class."""
    return isinstance(value, type) and issubclass(value, _BASES) and value not in _BASES


def any_stand_ins() -> bool:
    """Whether anything was missing so far in this process."""
    return bool(_registry)


def name_of(cls: type) -> str:
    """The dotted name of a class, or of the missing class that it stands for."""
    return f"{cls.__module__}.{cls.__qualname__}"


class StandInPickler(_PythonPickler):
    """A pickler that writes stand-ins as the globals they stand for. Slow, being in Python."""

    def save_global(self, obj: Any, name: str | None = None) -> None:
        if not is_stand_in(obj):
            super().save_global(obj, name)
            return
        outer, _, last = obj.__qualname__.rpartition(".")
        if outer:  # as protocol 3 writes a class within a class
            self.save_reduce(getattr, (stand_in(obj.__module__, outer), last), obj=obj)
        else:
            self.write(pickle.GLOBAL + f"{obj.__module__}\n{obj.__qualname__}\n".encode())
            self.memoize(obj)

    dispatch: ClassVar[dict[type, Any]] = {**_PythonPickler.dispatch, type: save_global}

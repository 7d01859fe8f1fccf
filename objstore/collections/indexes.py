"""What an index is made of: the values that it takes from an object, and the rules that these keep.

An `Index` is only the definition, part of the collection's record. The tree with the keys is an object of its own:
an `OOTreeSet` of keys with the id at their end, so that two transactions that add members with the same key, or
with neighbouring ones, merge; or, for a unique index, an `OLBTree` from key to id, where two that add the same key
conflict.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any

from objstore.collections.keys import MISSING, PLAIN, Key, encode
from objstore.collections.trees import KeySet, KeyTree
from objstore.errors import KeyTypeError, UsageError
from objstore.objects.broken import is_stand_in

Slot = tuple[Key, ...]
"""The keys that an index has of one member: none, one, or, in a multi-valued index, several."""


class _Absent:
    """What an object has where an attribute is missing: it is not in the index."""

    __slots__ = ()


ABSENT = _Absent()


class Computed:
    """A part of an index that a function computes from a member. `computed` makes one."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __call__(self, obj: Any) -> Any:
        """What the function gives for an object. Raises UsageError where the function cannot be imported."""
        if is_stand_in(self.function):
            raise UsageError(f"the function {self!r} of an index cannot be imported, and every change needs it")
        return self.function(obj)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Computed) and other.function is self.function

    def __hash__(self) -> int:
        return hash(self.function)

    def __repr__(self) -> str:
        name = getattr(self.function, "__qualname__", repr(self.function))
        return f"{getattr(self.function, '__module__', '')}.{name}"


Part = str | Computed
"""What a part of a key is taken from: an attribute, also one of an attribute (`"address.city"`), or a function."""


def computed(function: str | Callable[[Any], Any]) -> Computed:
    """What a function computes: a function of a module, or its dotted name. It is stored by name.

    It is called with a member, and should look at nothing else: when something else changes, no index follows.
    Where it raises AttributeError, the member is not in the index. Raises UsageError.
    """
    return Computed(_named_function(function))


def _named_function(function: str | Callable[[Any], Any]) -> Callable[[Any], Any]:
    found = _imported(function) if isinstance(function, str) else function
    module, name = getattr(found, "__module__", ""), getattr(found, "__qualname__", "")
    try:
        stored = getattr(importlib.import_module(module), name, None) if module else None
    except ImportError:
        stored = None
    if stored is not found or not callable(found):
        raise UsageError(f"{function!r} cannot be stored by name: it is not a function at the top of a module")
    function_found: Callable[[Any], Any] = found
    return function_found


def _imported(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"there is no function {name!r}: {error}") from error


def reader(part: Part) -> Callable[[Any], Any]:
    """Reads a part's value from an object, ABSENT where it has none."""
    get = part if isinstance(part, Computed) else attrgetter(part)

    def read(obj: Any) -> Any:
        try:
            return get(obj)
        except AttributeError:
            return ABSENT

    return read


def keys_reader(parts: tuple[Part, ...], *, multiple: bool) -> Callable[[Any], Slot]:
    """Reads the keys that an object has by these parts. What it gives raises KeyTypeError."""
    readers = [reader(part) for part in parts]
    if multiple:
        return lambda obj: _several(readers[0](obj))
    if len(readers) == 1:
        return _one_reader(readers[0])

    def compound(obj: Any) -> Slot:
        values = [read(obj) for read in readers]
        if all(value is ABSENT for value in values):
            return ()
        return (tuple(each for value in values for each in (MISSING if value is ABSENT else encode(value))),)

    return compound


def _one_reader(read: Callable[[Any], Any]) -> Callable[[Any], Slot]:
    plain = PLAIN.get

    def one(obj: Any) -> Slot:
        value = read(obj)
        if value is ABSENT:
            return ()
        rank = plain(type(value))  # as `encode`, without a call for most values
        return ((rank, value),) if rank is not None else (encode(value),)

    return one


def _several(value: Any) -> Slot:
    if value is ABSENT or value is None:
        return ()
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise KeyTypeError(value, "a multi-valued index takes the members of a list, a tuple or a set")
    return tuple(sorted({encode(each) for each in value}))


class Index:
    """The definition of an index.

    `on` is an attribute, a function (see `computed`), or a tuple of these, which makes it compound. The others
    are told in `docs/collections.md`; members for which `where`, a condition, does not hold are not in the index.
    """

    def __init__(
        self,
        on: Part | Callable[[Any], Any] | tuple[Any, ...],
        *,
        unique: bool = False,
        multiple: bool = False,
        immutable: bool = False,
        where: Any = None,
    ) -> None:
        parts = on if isinstance(on, tuple) else (on,)
        self.on: tuple[Part, ...] = tuple(_part(each) for each in parts)
        self.unique = unique
        self.multiple = multiple
        self.immutable = immutable
        self.where = where
        if where is not None and not callable(getattr(where, "holds", None)):
            raise UsageError(f"where is a condition, made with where(...) or matches(...), not {where!r}")
        if not self.on:
            raise UsageError("an index is on at least one attribute")
        if multiple and len(self.on) > 1:
            raise UsageError("a multi-valued index has one part")
        self._prepare()

    def _prepare(self) -> None:
        self._read: Callable[[Any], Slot] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_read"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._prepare()

    def slot(self, obj: Any) -> Slot:
        """The keys of an object. Raises KeyTypeError, and what functions and properties raise."""
        return self.slot_reader()(obj)

    def slot_reader(self) -> Callable[[Any], Slot]:
        """Reads the keys of objects."""
        if self._read is None:
            read, condition = keys_reader(self.on, multiple=self.multiple), self.where
            self._read = read if condition is None else lambda obj: read(obj) if condition.holds(obj) else ()
        return self._read

    def new_tree(self) -> Any:
        """An empty tree for its keys."""
        return KeyTree() if self.unique else KeySet()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Index) and self.__getstate__() == other.__getstate__()

    def __hash__(self) -> int:
        return hash(self.on)

    def __repr__(self) -> str:
        on = self.on[0] if len(self.on) == 1 else self.on
        rules = [f"{name}=True" for name in ("unique", "multiple", "immutable") if getattr(self, name)]
        if self.where is not None:
            rules.append(f"where={self.where}")
        return f"Index({', '.join([repr(on), *rules])})"


def _part(part: Any) -> Part:
    if isinstance(part, str | Computed):
        return part
    if callable(part):
        return computed(part)
    raise UsageError(f"an index is on attributes and functions, not on {part!r}")


def as_index(given: Any) -> Index:
    """An index as it may be written in short: what it is on."""
    return given if isinstance(given, Index) else Index(given)

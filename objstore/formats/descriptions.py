"""What a record holds, as values that say what they are without being it.

Here a record is decoded for people to look at. Plain data (numbers, text, bytes, lists, dictionaries) becomes
plain data; whatever would take a class to make becomes an `Instance` that names the class and carries what
it was to be given. Nothing is imported, called or hashed: a dictionary is a list of pairs here, because the
hash of a hostile key may take forever, and a record may say that it holds itself. `formats.rendering` shows
such values within bounds.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from objstore.errors import SerializationError
from objstore.formats.disassembly import Operation, operations
from objstore.ids import Oid

Value = object
"""None, bool, int, float, str, bytes, or one of the classes below."""


@dataclass(eq=False, slots=True)
class Items:
    """A list, a tuple, a set or a frozenset: `kind` says which."""

    kind: str
    items: list[Value]


@dataclass(eq=False, slots=True)
class Pairs:
    """A dictionary."""

    pairs: list[tuple[Value, Value]]


@dataclass(eq=False, frozen=True, slots=True)
class Class:
    """A class, or whatever else has a module and a name."""

    name: str


class Kind(StrEnum):
    """What a reference means."""

    STRONG = "reference"
    WEAK = "weak"
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class Reference:
    """A persistent id. `class_name` is None where it names none, `database` where it is this one."""

    kind: Kind
    oid: Oid
    class_name: str | None = None
    database: str | None = None


@dataclass(eq=False, slots=True)
class Instance:
    """What calling a class, with these arguments, and then giving it a state, items and pairs would make.

    `value` is what it stands for, as text, for the few kinds that are understood here (dates and times).
    """

    class_name: str
    arguments: Value = None
    state: Value = None
    items: list[Value] = field(default_factory=list)
    pairs: list[tuple[Value, Value]] = field(default_factory=list)
    value: str | None = None


@dataclass(frozen=True, slots=True)
class Description:
    """A record, decoded: its class, the arguments to create its object with, its references, its state."""

    class_name: str
    arguments: Value
    references: tuple[Reference, ...]
    state: Value


def describe(data: bytes) -> Description:
    """Decode a record without importing its classes or executing its pickles. Raises `SerializationError`."""
    machine = _Machine()
    results = []
    for operation in operations(data):
        if operation.opcode.name == "STOP":
            results.append(machine.stop())
        else:
            machine.follow(operation)
    class_name, arguments = _class_of(results[0])
    return Description(class_name, arguments, tuple(dict.fromkeys(machine.references)), results[1])


def _class_of(value: Value) -> tuple[str, Value]:
    """The class's name and the arguments, from what the pickle of a class made."""
    arguments: Value = None
    if isinstance(value, Items) and len(value.items) == 2:
        value, arguments = value.items
    if isinstance(value, Items) and len(value.items) == 2:
        module, name = value.items
        if isinstance(module, str) and isinstance(name, str):
            return f"{module}.{name}", arguments
    if isinstance(value, Class):
        return value.name, arguments
    if isinstance(value, Reference):
        return f"<the persistent class {value.oid.hex()}>", arguments
    raise SerializationError("the record names no class")


# --- the machine -------------------------------------------------------------------------------------


class _Machine:
    """Follows the opcodes of a record and makes values of them."""

    def __init__(self) -> None:
        self.stack: list[Value] = []
        self.marks: list[int] = []
        self.memo: dict[int, Value] = {}
        self.references: list[Reference] = []

    def follow(self, operation: Operation) -> None:
        name, argument = operation.opcode.name, operation.argument
        try:
            if name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name](argument))
            elif name in _PUTS:
                self.memo[argument if isinstance(argument, int) else len(self.memo)] = self.stack[-1]
            elif name in _GETS and isinstance(argument, int):
                self.stack.append(self.memo[argument])
            elif name in _STEPS:
                _STEPS[name](self)
            elif name == "INST":
                self.stack.append(Instance(_class(argument).name, Items("tuple", self.to_mark())))
            else:
                raise SerializationError(f"{name} at byte {operation.offset} has no place in a record")
        except (IndexError, KeyError) as error:
            reason = (
                "takes what was not stored" if isinstance(error, KeyError) else "finds too little on the stack"
            )
            raise SerializationError(f"{name} at byte {operation.offset} {reason}") from error

    def stop(self) -> Value:
        """The result of a pickle."""
        if not self.stack:
            raise SerializationError("a pickle of the record leaves no value")
        value = self.stack[-1]
        self.stack.clear()
        self.marks.clear()
        return value

    def to_mark(self) -> list[Value]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def take(self, count: int) -> list[Value]:
        if len(self.stack) < count:
            raise IndexError(count)
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def extend(self, items: list[Value]) -> None:
        """Add to the list or set, or to what passes for one, on top of the stack."""
        target = self.stack[-1]
        if isinstance(target, Items | Instance):
            target.items.extend(items)

    def set_pairs(self, items: list[Value]) -> None:
        """Add keys and values, in turns, to the dictionary, or to what passes for one, on top of the stack."""
        target = self.stack[-1]
        if isinstance(target, Pairs | Instance):
            target.pairs.extend(zip(items[::2], items[1::2], strict=False))

    def build(self) -> None:
        (state,) = self.take(1)
        target = self.stack[-1]
        if isinstance(target, Instance):
            target.state = state

    def refer(self) -> None:
        (pid,) = self.take(1)
        reference = _reference(pid)
        self.references.append(reference)
        self.stack.append(reference)

    def pop(self) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()


def _text(value: object) -> Value:
    """A string of Python 2, which `pickletools` gives as Latin-1: text if it is ASCII, else bytes."""
    return value if not isinstance(value, str) or value.isascii() else value.encode("latin-1")


def _class(argument: object) -> Class:
    return Class(".".join(argument) if isinstance(argument, tuple) else f"<extension code {argument}>")


def _same(argument: object) -> Value:
    return bytes(argument) if isinstance(argument, bytearray) else argument


_CONSTANTS: Final[dict[str, Callable[[object], Value]]] = {
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_TUPLE": lambda _: Items("tuple", []),
    "EMPTY_LIST": lambda _: Items("list", []),
    "EMPTY_SET": lambda _: Items("set", []),
    "EMPTY_DICT": lambda _: Pairs([]),
    **dict.fromkeys(("GLOBAL", "EXT1", "EXT2", "EXT4"), _class),
    **dict.fromkeys(("STRING", "BINSTRING", "SHORT_BINSTRING"), _text),
    **dict.fromkeys(("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"), _same),
    **dict.fromkeys(("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"), _same),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"), _same),
}
_PUTS: Final = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
_GETS: Final = frozenset({"GET", "BINGET", "LONG_BINGET"})


def _tuple_of(count: int) -> Callable[[_Machine], None]:
    return lambda machine: machine.stack.append(Items("tuple", machine.take(count)))


def _marked(kind: str) -> Callable[[_Machine], None]:
    return lambda machine: machine.stack.append(Items(kind, machine.to_mark()))


def _dictionary(machine: _Machine) -> None:
    items = machine.to_mark()
    machine.stack.append(Pairs(list(zip(items[::2], items[1::2], strict=False))))


def _named(machine: _Machine) -> None:
    module, name = machine.take(2)
    if not isinstance(module, str) or not isinstance(name, str):
        raise SerializationError("a class whose name is no text")
    machine.stack.append(Class(f"{module}.{name}"))


def _reduce(machine: _Machine) -> None:
    function, arguments = machine.take(2)
    machine.stack.append(_made(function, arguments))


def _create(machine: _Machine) -> None:
    class_, arguments = machine.take(2)
    machine.stack.append(Instance(_name_of(class_), arguments))


def _create_with_names(machine: _Machine) -> None:
    class_, arguments, named = machine.take(3)
    machine.stack.append(Instance(_name_of(class_), Items("tuple", [arguments, named])))


def _create_marked(machine: _Machine) -> None:
    items = machine.to_mark()
    machine.stack.append(Instance(_name_of(items[0]), Items("tuple", items[1:])))


_STEPS: Final[dict[str, Callable[[_Machine], None]]] = {
    "PROTO": lambda _: None,
    "FRAME": lambda _: None,
    "READONLY_BUFFER": lambda _: None,
    "MARK": lambda machine: machine.marks.append(len(machine.stack)),
    "POP": _Machine.pop,
    "POP_MARK": lambda machine: machine.to_mark().clear(),
    "DUP": lambda machine: machine.stack.append(machine.stack[-1]),
    "TUPLE": _marked("tuple"),
    "LIST": _marked("list"),
    "FROZENSET": _marked("frozenset"),
    "DICT": _dictionary,
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "APPEND": lambda machine: machine.extend(machine.take(1)),
    "APPENDS": lambda machine: machine.extend(machine.to_mark()),
    "ADDITEMS": lambda machine: machine.extend(machine.to_mark()),
    "SETITEM": lambda machine: machine.set_pairs(machine.take(2)),
    "SETITEMS": lambda machine: machine.set_pairs(machine.to_mark()),
    "STACK_GLOBAL": _named,
    "REDUCE": _reduce,
    "NEWOBJ": _create,
    "NEWOBJ_EX": _create_with_names,
    "OBJ": _create_marked,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.refer,
}


# --- what is understood ------------------------------------------------------------------------------


def _name_of(class_: Value) -> str:
    if isinstance(class_, Class):
        return class_.name
    if isinstance(class_, Reference):
        return f"<the persistent class {class_.oid.hex()}>"
    return "<no class>"


def _reference(pid: Value) -> Reference:
    """A persistent id: `oid`, `(oid, class)`, `['w' | 'm' | 'n', arguments]`, or the old weak `[oid]`."""
    match pid:
        case Items("tuple", [oid, class_]):
            return Reference(Kind.STRONG, _oid(oid), _name_of(class_) if class_ is not None else None)
        case Items("list", [oid]):
            return Reference(Kind.WEAK, _oid(oid))
        case Items("list", ["w", Items("tuple", [oid])]):
            return Reference(Kind.WEAK, _oid(oid))
        case Items("list", ["w", Items("tuple", [oid, str(database)])]):
            return Reference(Kind.WEAK, _oid(oid), database=database)
        case Items("list", ["n", Items("tuple", [str(database), oid])]):
            return Reference(Kind.FOREIGN, _oid(oid), database=database)
        case Items("list", ["m", Items("tuple", [str(database), oid, class_])]):
            return Reference(Kind.FOREIGN, _oid(oid), _name_of(class_), database)
        case Items():
            raise SerializationError("a reference of an unknown form")
        case _:
            return Reference(Kind.STRONG, _oid(pid))


def _oid(value: Value) -> Oid:
    """An oid; one of Python 2 that happens to be ASCII has become text."""
    if isinstance(value, str) and value.isascii():
        value = value.encode()
    if isinstance(value, bytes) and len(value) == 8:
        return Oid(value)
    raise SerializationError("a reference whose oid is not eight bytes")


_SETS: Final = {
    f"{module}.{kind}": kind for module in ("builtins", "__builtin__") for kind in ("set", "frozenset")
}
_MOMENTS: Final = frozenset({"datetime.datetime", "datetime.date", "datetime.time"})


def _made(function: Value, arguments: Value) -> Value:
    """What calling `function` would make, where that is a matter of form; else an instance of it."""
    name = _name_of(function)
    given = arguments.items if isinstance(arguments, Items) else []
    match name, given:
        case ("copyreg._reconstructor" | "copy_reg._reconstructor", [Class(class_name), Class(), state]):
            return Instance(class_name, state=state)
        case ("copyreg.__newobj__" | "copy_reg.__newobj__", [Class(class_name), *rest]):
            return Instance(class_name, Items("tuple", rest))
        case ("_codecs.encode", [str(text), "latin1"]) if all(ord(letter) < 256 for letter in text):
            return text.encode("latin-1")
        case (_, [Items("list", items)]) if name in _SETS:
            return Items(_SETS[name], items)
        case (_, [str() | bytes() as packed, *rest]) if name in _MOMENTS:
            zone = Items("tuple", rest) if rest else None
            if value := _moment(name, packed.encode("latin-1", "replace") if isinstance(packed, str) else packed):
                return Instance(name, zone, value=value)
    return Instance(name, arguments)


def _moment(name: str, packed: bytes) -> str | None:
    """The ISO form of the packed fields that dates and times are pickled as; None where they are not."""
    sizes = {"datetime.datetime": 10, "datetime.date": 4, "datetime.time": 6}
    if len(packed) != sizes[name]:
        return None
    year, rest = int.from_bytes(packed[:2], "big"), packed[2:]
    microsecond = int.from_bytes(packed[-3:], "big")
    try:
        if name == "datetime.datetime":
            month, day, hour, minute, second = rest[:5]
            return datetime.datetime(year, month & 127, day, hour, minute, second, microsecond).isoformat()
        if name == "datetime.date":
            return datetime.date(year, *rest).isoformat()
        hour, minute, second = packed[:3]
        return datetime.time(hour & 127, minute, second, microsecond).isoformat()
    except ValueError:
        return None

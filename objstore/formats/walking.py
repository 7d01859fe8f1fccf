"""The machine that follows the opcodes of a record's pickles and builds none of its values.

On its stack stand the places of constants, and tuples and lists of places: enough to find what each
persistent id is made of, and what a class is named. So nothing is imported, called or hashed, no opcode
leads around that (the registry of extension codes, a hashed tuple of a million levels, a memo index of two
thousand millions), and what is needed of memory is a small multiple of the record, whoever wrote it.

The meaning of the opcodes is that of `pickletools`; the forms of references and of classes are those that
ZODB's `serialize` describes. Every fault of a record is a `SerializationError` here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from objstore.errors import SerializationError

Symbol = object
"""What stands on the machine's stack: the offset (int) of the opcode that made a constant; a tuple or a list
of symbols; a `Global`; a `Use`; or None for all that nobody here asks about."""


class Global:
    """A class named by two constants. No tuple, because tuples stand on the stack for tuples."""

    __slots__ = ("module", "name")

    def __init__(self, module: Symbol, name: Symbol) -> None:
        self.module = module
        self.name = name


class Use:
    """A value taken from the memo by the opcode at `offset`. Made only where a machine notes its uses."""

    __slots__ = ("offset", "size", "value")

    def __init__(self, offset: int, size: int, value: Symbol) -> None:
        self.offset = offset
        self.size = size
        self.value = value


def constant_of(symbol: Symbol) -> int:
    """The offset of the constant that a symbol stands for; -1 where it stands for none."""
    if isinstance(symbol, Use):
        symbol = symbol.value
    return symbol if isinstance(symbol, int) else -1


# --- the machine -------------------------------------------------------------------------------------

_FAULTS: Final = (IndexError, KeyError, ValueError, struct.error)
"""What following bytes that are no pickle runs into: an end too early, an empty stack, an unknown memo entry
or opcode, a number that is none."""

_U32: Final = struct.Struct("<I").unpack_from

# The opcodes that records are mostly made of; the others are in `_RARE`.
_BINPUT, _LONG_BINPUT, _BINGET = b"qrh"
_BINUNICODE, _MARK, _TUPLE2, _SETITEMS, _GLOBAL, _BINPERSID, _STOP = b"X(\x86ucQ."
_COUNTED: Final = frozenset(b"CU\x8c\x8a")
"""SHORT_BINBYTES, SHORT_BINSTRING, SHORT_BINUNICODE and LONG1: a constant after its length in one byte."""

_SIZES: Final = bytearray(256)
"""The sizes of the opcodes that push one value and have a fixed size, with their arguments; else 0."""
for _opcodes, _size in {b"N\x88\x89}\x8f\x97": 1, b"K\x82": 2, b"M\x83": 3, b"J\x84": 5, b"G": 9}.items():
    for _opcode in _opcodes:
        _SIZES[_opcode] = _size


class Machine:
    """Follows the opcodes of a record. Used once."""

    __slots__ = ("data", "framed", "marks", "memo", "stack", "strong", "uses", "weak")

    def __init__(self, data: bytes, uses: list[Use] | None) -> None:
        """`uses`, where given, collects what is taken from the memo; else the symbols are taken as such."""
        self.data = data
        self.uses = uses
        self.stack: list[Symbol] = []
        self.marks: list[int] = []
        self.memo: dict[int, Symbol] = {}
        self.strong: list[Symbol] = []
        self.weak: list[Symbol] = []
        self.framed = False

    def run(self, at: int) -> tuple[Symbol, int]:
        """Follow the pickle that begins at `at`: what it leaves on the stack, and where it ends."""
        data, stack, memo, sizes = self.data, self.stack, self.memo, _SIZES
        push = stack.append
        stack.clear()
        self.marks.clear()
        while True:
            op = data[at]
            if size := sizes[op]:
                push(at)
                at += size
            elif op == _BINPUT:
                memo[data[at + 1]] = stack[-1]
                at += 2
            elif op == _BINUNICODE:
                push(at)
                at += 5 + _U32(data, at + 1)[0]
            elif op == _BINGET:
                value = memo[data[at + 1]]
                push(value if self.uses is None else self.use(at, 2, value))
                at += 2
            elif op in _COUNTED:
                push(at)
                at += 2 + data[at + 1]
            elif op == _TUPLE2:
                last = stack.pop()
                stack[-1] = (stack[-1], last)
                at += 1
            elif op == _BINPERSID:
                pid = stack[-1]
                if type(pid) is tuple and len(pid) == 2:
                    self.strong.append(pid[0])
                else:
                    self.refer(pid)
                stack[-1] = None
                at += 1
            elif op == _GLOBAL:
                push(at)
                at = data.index(b"\n", data.index(b"\n", at) + 1) + 1
            elif op == _MARK:
                self.marks.append(len(stack))
                at += 1
            elif op == _SETITEMS:
                del stack[self.marks.pop() :]
                at += 1
            elif op == _LONG_BINPUT:
                memo[_U32(data, at + 1)[0]] = stack[-1]
                at += 5
            elif op == _STOP:
                return stack.pop(), at + 1
            else:
                at = _RARE[op](self, at)

    def use(self, at: int, size: int, value: Symbol) -> Symbol:
        """What to push for a value that the opcode at `at` takes from the memo."""
        if self.uses is None:
            return value
        noted = Use(at, size, value.value if isinstance(value, Use) else value)
        self.uses.append(noted)
        return noted

    def to_mark(self) -> list[Symbol]:
        """Pop what is above the last mark, and the mark."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def refer(self, pid: Symbol) -> None:
        """Note a persistent id that is no pair: `oid`, `[kind, arguments]`, or the old weak `[oid]`."""
        if isinstance(pid, Use) and isinstance(pid.value, tuple | list):
            pid = pid.value  # all of it is taken from the memo: what ZODB imports has such references
        if isinstance(pid, tuple) and len(pid) == 2:
            self.strong.append(pid[0])
        elif isinstance(pid, int | Use):
            self.strong.append(pid)
        elif isinstance(pid, list) and len(pid) == 1:
            self.weak.append(pid[0])
        elif isinstance(pid, list) and len(pid) == 2 and isinstance(pid[1], tuple):
            kind, arguments = self.text(pid[0]), pid[1]
            if (kind, len(arguments)) == ("w", 1):
                self.weak.append(arguments[0])
            elif (kind, len(arguments)) not in {("w", 2), ("n", 2), ("m", 3)}:
                raise SerializationError(f"a reference of the unknown kind {kind!r}")
        else:
            raise SerializationError("a reference of an unknown form")

    # --- what the constants are

    def oid_at(self, symbol: Symbol) -> int:
        """Where in the record the eight bytes of an oid stand."""
        offset = constant_of(symbol)
        if offset >= 0:
            op = self.data[offset]
            for opcodes, width in ((b"CU", 1), (b"BT", 4), (b"\x8e", 8)):
                at = offset + 1 + width
                if op in opcodes and int.from_bytes(self.data[offset + 1 : at], "little") == 8:
                    return at
        raise SerializationError("a reference whose oid is not eight bytes")

    def text(self, symbol: Symbol) -> str:
        """A constant as text. Raises `SerializationError` where it is none."""
        offset = constant_of(symbol)
        if offset >= 0:
            op = self.data[offset]
            for opcodes, width in ((b"\x8cU", 1), (b"XT", 4), (b"\x8d", 8)):
                at = offset + 1 + width
                if op in opcodes:
                    size = int.from_bytes(self.data[offset + 1 : at], "little")
                    return _decoded(self.data[at : at + size])
        raise SerializationError("a name that is no text")

    def class_name(self, symbol: Symbol) -> str:
        """The dotted name that the pickle of a class left on the stack."""
        if isinstance(symbol, tuple) and len(symbol) == 2:
            symbol = symbol[0]
        if isinstance(symbol, tuple) and len(symbol) == 2:
            return f"{self.text(symbol[0])}.{self.text(symbol[1])}"
        if isinstance(symbol, Global):
            return f"{self.text(symbol.module)}.{self.text(symbol.name)}"
        if isinstance(symbol, int) and self.data[symbol] == _GLOBAL:
            middle = self.data.index(b"\n", symbol)
            end = self.data.index(b"\n", middle + 1)
            return ".".join((_decoded(self.data[symbol + 1 : middle]), _decoded(self.data[middle + 1 : end])))
        raise SerializationError("the record names no class")


def _decoded(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise SerializationError("a name that is no text") from error


# --- the other opcodes -------------------------------------------------------------------------------
#
# Each is given the machine and where the opcode stands, and returns where the next one does.


def _skip(size: int) -> Callable[[Machine, int], int]:
    def run(_: Machine, at: int) -> int:
        return at + size

    return run


def _counted(width: int) -> Callable[[Machine, int], int]:
    """A constant after a length of so many bytes."""

    def run(machine: Machine, at: int) -> int:
        machine.stack.append(at)
        start = at + 1 + width
        return start + int.from_bytes(machine.data[at + 1 : start], "little")

    return run


def _line(machine: Machine, at: int) -> int:
    machine.stack.append(at)
    return machine.data.index(b"\n", at) + 1


def _becomes(count: int) -> Callable[[Machine, int], int]:
    """So many values become one that nobody asks about."""

    def run(machine: Machine, at: int) -> int:
        for _ in range(count):
            machine.stack.pop()
        machine.stack.append(None)
        return at + 1

    return run


def _marked_becomes(machine: Machine, at: int) -> int:
    machine.to_mark()
    machine.stack.append(None)
    return at + 1


def _instance(machine: Machine, at: int) -> int:
    end = machine.data.index(b"\n", machine.data.index(b"\n", at) + 1)
    _marked_becomes(machine, at)
    return end + 1


def _drop(count: int) -> Callable[[Machine, int], int]:
    def run(machine: Machine, at: int) -> int:
        for _ in range(count):
            machine.stack.pop()
        return at + 1

    return run


def _drop_marked(machine: Machine, at: int) -> int:
    machine.to_mark()
    return at + 1


def _pop(machine: Machine, at: int) -> int:
    if machine.marks and machine.marks[-1] == len(machine.stack):
        machine.marks.pop()
    else:
        machine.stack.pop()
    return at + 1


def _duplicate(machine: Machine, at: int) -> int:
    machine.stack.append(machine.stack[-1])
    return at + 1


def _tuple(machine: Machine, at: int) -> int:
    machine.stack.append(tuple(machine.to_mark()))
    return at + 1


def _empty_tuple(machine: Machine, at: int) -> int:
    machine.stack.append(())
    return at + 1


def _tuple_of(count: int) -> Callable[[Machine, int], int]:
    def run(machine: Machine, at: int) -> int:
        if len(machine.stack) < count:
            raise IndexError
        items = tuple(machine.stack[-count:])
        machine.stack[-count:] = [items]
        return at + 1

    return run


def _list(machine: Machine, at: int) -> int:
    machine.stack.append(machine.to_mark())
    return at + 1


def _empty_list(machine: Machine, at: int) -> int:
    empty: list[Symbol] = []
    machine.stack.append(empty)
    return at + 1


def _append(machine: Machine, at: int) -> int:
    item = machine.stack.pop()
    if isinstance(target := machine.stack[-1], list):
        target.append(item)
    return at + 1


def _appends(machine: Machine, at: int) -> int:
    items = machine.to_mark()
    if isinstance(target := machine.stack[-1], list):
        target.extend(items)
    return at + 1


def _put(machine: Machine, at: int) -> int:
    end = machine.data.index(b"\n", at)
    machine.memo[int(machine.data[at + 1 : end])] = machine.stack[-1]
    return end + 1


def _get(machine: Machine, at: int) -> int:
    end = machine.data.index(b"\n", at)
    value = machine.memo[int(machine.data[at + 1 : end])]
    machine.stack.append(machine.use(at, end + 1 - at, value))
    return end + 1


def _long_get(machine: Machine, at: int) -> int:
    machine.stack.append(machine.use(at, 5, machine.memo[_U32(machine.data, at + 1)[0]]))
    return at + 5


def _memoize(machine: Machine, at: int) -> int:
    machine.memo[len(machine.memo)] = machine.stack[-1]
    return at + 1


def _stack_global(machine: Machine, at: int) -> int:
    name = machine.stack.pop()
    machine.stack.append(Global(machine.stack.pop(), name))
    return at + 1


def _frame(machine: Machine, at: int) -> int:
    machine.framed = True
    return at + 9


def _text_reference(_: Machine, at: int) -> int:
    raise SerializationError(f"a reference written as text, at byte {at}; records have binary ones")


_RARE: Final[dict[int, Callable[[Machine, int], int]]] = {
    ord(opcode): run
    for opcodes, run in (
        ("\x80", _skip(2)),  # PROTO
        ("\x95", _frame),
        ("\x98", _skip(1)),  # READONLY_BUFFER
        ("BT\x8b", _counted(4)),  # BINBYTES BINSTRING LONG4
        ("\x8d\x8e\x96", _counted(8)),  # BINUNICODE8 BINBYTES8 BYTEARRAY8
        ("ILFSV", _line),  # INT LONG FLOAT STRING UNICODE
        ("R\x81", _becomes(2)),  # REDUCE NEWOBJ
        ("\x92", _becomes(3)),  # NEWOBJ_EX
        ("do\x91", _marked_becomes),  # DICT OBJ FROZENSET
        ("i", _instance),
        ("b", _drop(1)),  # BUILD
        ("s", _drop(2)),  # SETITEM
        ("1\x90", _drop_marked),  # POP_MARK ADDITEMS
        ("0", _pop),
        ("2", _duplicate),
        ("t", _tuple),
        (")", _empty_tuple),
        ("\x85", _tuple_of(1)),
        ("\x87", _tuple_of(3)),
        ("l", _list),
        ("]", _empty_list),
        ("a", _append),
        ("e", _appends),
        ("p", _put),
        ("g", _get),
        ("j", _long_get),
        ("\x94", _memoize),
        ("\x93", _stack_global),
        ("P", _text_reference),
    )
    for opcode in opcodes
}


# --- following a record ------------------------------------------------------------------------------


def walked(data: bytes, uses: list[Use] | None = None) -> Machine:
    """A machine that has followed both pickles of a record. Raises `SerializationError`."""
    machine = Machine(data, uses)
    try:
        _, end = machine.run(0)
        machine.run(end)
    except _FAULTS as error:
        raise _malformed(data, error) from error
    return machine


def first_of(data: bytes) -> tuple[Machine, Symbol, int]:
    """A machine that has followed the first pickle only, what that left, and where the second one begins.

    Raises `SerializationError`.
    """
    machine = Machine(data, None)
    try:
        return machine, *machine.run(0)
    except _FAULTS as error:
        raise _malformed(data, error) from error


def _malformed(data: bytes, error: Exception) -> SerializationError:
    """What to raise for bytes that are not two pickles; `error` is what following them ran into."""
    if data.startswith(b".z"):
        return SerializationError("the record is compressed as zc.zlibstorage does; decompress it first")
    if isinstance(error, KeyError):
        reason = "an unknown opcode or memo entry"
    else:
        reason = "it ends too early, or takes from an empty stack"
    return SerializationError(f"the record is not two well-formed pickles: {reason}")

"""The opcodes of a record's two pickles, one by one and as a listing for people.

Made for looking at records that nothing else can read: the listing goes as far as the bytes make sense. The
opcodes and their names are those of `pickletools`, read here because its own reader stops at class names
that are not ASCII, and because a record's second pickle uses the memo of the first.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Iterator
from typing import Final, NamedTuple

from objstore.errors import SerializationError

_OPCODES: Final = {ord(opcode.code): opcode for opcode in pickletools.opcodes}
LONGEST: Final = 2_000
"""Of longer text and bytes only the beginning is shown to people."""
_FAULTS: Final = (ValueError, IndexError, OverflowError)


class Operation(NamedTuple):
    """One opcode: where it stands, and its argument (None where it has none) as `pickletools` reads it.

    The argument of GLOBAL and INST is the pair of a module and a name.
    """

    offset: int
    opcode: pickletools.OpcodeInfo
    argument: object


def operations(data: bytes) -> Iterator[Operation]:
    """The opcodes of both pickles of a record. Raises `SerializationError` where they make no sense."""
    file = io.BytesIO(data)
    stops = 0
    while stops < 2:
        offset = file.tell()
        code = file.read(1)
        if not code:
            raise SerializationError(f"the record ends at byte {offset}, within a pickle")
        opcode = _OPCODES.get(code[0])
        if opcode is None:
            raise SerializationError(f"no opcode at byte {offset}, but {code!r}")
        try:
            argument = _argument(opcode, file)
        except _FAULTS as error:
            raise SerializationError(f"{opcode.name} at byte {offset}: {error}") from error
        yield Operation(offset, opcode, argument)
        stops += code == b"."


def _argument(opcode: pickletools.OpcodeInfo, file: io.BytesIO) -> object:
    if opcode.name in ("GLOBAL", "INST"):
        lines = file.readline(), file.readline()
        if not lines[0].endswith(b"\n") or not lines[1].endswith(b"\n"):
            raise ValueError("a name without an end")
        return lines[0][:-1].decode(), lines[1][:-1].decode()
    return opcode.arg.reader(file) if opcode.arg is not None else None


def disassemble(data: bytes) -> Iterator[str]:
    """A line for each opcode of a record's two pickles, without executing them.

    Raises `SerializationError` after the last line that makes sense.
    """
    depth = 0
    yield "class:"
    stops = 0
    for offset, opcode, argument in operations(data):
        if pickletools.markobject in opcode.stack_before:
            depth = max(depth - 1, 0)
        text = "" if argument is None else _shown(opcode, argument)
        yield f"{offset:7}: {'  ' * min(depth, 20)}{opcode.name} {text}".rstrip()
        if opcode.name == "MARK":
            depth += 1
        elif opcode.name == "STOP":
            depth, stops = 0, stops + 1
            if stops == 1:
                yield "state:"


def _shown(opcode: pickletools.OpcodeInfo, argument: object) -> str:
    if isinstance(argument, tuple):
        return ascii(".".join(argument))
    if isinstance(argument, int) and argument.bit_length() > 1024:
        return hex(argument)
    if opcode.name in ("BINSTRING", "SHORT_BINSTRING") and isinstance(argument, str):
        argument = argument.encode("latin-1")
    if isinstance(argument, str | bytes | bytearray):
        unit = "characters" if isinstance(argument, str) else "bytes"
        more = f"... ({len(argument):,} {unit})" if len(argument) > LONGEST else ""
        return ascii(argument[:LONGEST]) + more
    return repr(argument)

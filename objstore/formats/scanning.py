"""The references of most records, found by one regular expression: several times as fast as following opcodes.

Records are written by few picklers, in few opcodes. The expression knows these: it matches a record opcode by
opcode, each with its argument, from the first byte to the last, so that no byte of a text is taken for an opcode.
Among them it knows one form of reference: an oid, a class, a pair of both, BINPERSID. Wherever it meets anything
else (a longer text, another opcode, a reference of another form, or an oid from the memo) nothing is found here,
and who asks follows the opcodes (`walking`). Nothing is imported, called, or made, but the oids.

What is found is what `walking` finds, of every record that it can follow. It also fails for records whose opcodes
do not fit each other, as one that takes from an empty stack; here these are read like others.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Final

LARGEST: Final = 2**16
"""Longer records are left to `walking`: the expression needs memory for each opcode."""

_STOP: Final = (b"", b".")
"""What is found where a pickle ends."""
_PUT: Final = rb"(?:q.)?+"
_GLOBAL: Final = rb"c[^\n]*+\n[^\n]*+\n"
_REST: Final = rb"%b(?:h.|j..\0\0|%b%b)\x86%bQ" % (_PUT, _GLOBAL, _PUT, _PUT)
"""Of a reference, what follows the oid."""


def _counted(sizes: range, tail: bytes = b"") -> bytes:
    """A length in one byte, what follows that, and so many bytes."""
    return rb"(?>%b)" % b"|".join(b"%b%b.{%d}" % (re.escape(bytes((size,))), tail, size) for size in sizes)


def _pattern() -> bytes:
    byte = range(256)
    opcodes = (
        rb"[qhK].",  # BINPUT BINGET BININT1
        rb"X%b" % _counted(byte, rb"\0\0\0"),  # BINUNICODE
        rb"[N\x88\x89}\])(tuesab\x85\x86\x87R\x81]++",  # those without an argument
        _GLOBAL,
        rb"[CU](?!\x08)%b" % _counted(byte),  # SHORT_BINBYTES SHORT_BINSTRING, but such as may be oids
        rb"\x80[\2-\4]",  # PROTO
        rb"[rj]..\0\0",  # LONG_BINPUT LONG_BINGET
        rb"M..|J.{4}|G.{8}|\x8a%b" % _counted(range(1, 17)),  # numbers
    )
    return rb"(?s:(?:%b)*+(?:[CU]\x08(?:(.{8})%b|.{8})|(\.|.+)))" % (b"|".join(opcodes), _REST)


@cache
def _found() -> Callable[[bytes], list[tuple[bytes, bytes]]]:
    """What finds in a record, one after the other: an oid that is referred to, and nothing; nothing twice, for
    what could have been one; or nothing, and what stands where no known opcode does: a point where a pickle ends.

    Made when it is first needed, because that takes a while.
    """
    return re.compile(_pattern()).findall


def scanned(data: bytes) -> bytes | None:
    """The oids that a record refers to strongly, packed, each once, in order; None where that is not sure."""
    if len(data) > LARGEST or not data.startswith(b"\x80"):
        return None
    found = _found()(data)
    if (
        found[-1] != _STOP or found.count(_STOP) != 2
    ):  # what is not known comes last, because it takes all the rest
        return None
    oids = dict(found)  # in order, each once
    del oids[b""]
    return b"".join(oids)

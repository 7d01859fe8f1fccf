"""Described values as text for people and as JSON for programs, within bounds.

What a record says may be endless though the record is short: a list that holds itself, or forty levels of a
pair of the level below. So a value on its own path is shown as a cycle, what is nested too deeply as dots,
and after `limit` values no more are shown, which is said.

In JSON, lists and tuples are arrays, a dictionary whose keys are text is an object, and all else is an
object with a key that begins with `$`: `$bytes` (hexadecimal), `$set`, `$pairs`, `$class`, `$object`,
`$reference`, `$weak`, `$foreign`, `$float`, `$int`, `$cycle`, `$more`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from objstore.formats.descriptions import Class, Instance, Items, Pairs, Reference, Value
from objstore.formats.disassembly import LONGEST

MAX_DEPTH: Final = 40
LIMIT: Final = 10_000
_LARGE: Final = 1024
"""Integers of more bits are written in hexadecimal: in decimal that takes quadratic time, so Python refuses."""

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


class _Bounds:
    """How much has been shown, and what is being shown."""

    def __init__(self, limit: int) -> None:
        self.left = limit
        self.path: list[int] = []

    def cut(self, value: Value) -> str | None:
        """Count a value; "cycle" or "more" if it is not to be shown."""
        self.left -= 1
        if id(value) in self.path:
            return "cycle"
        return "more" if self.left < 0 or len(self.path) >= MAX_DEPTH else None


# --- JSON --------------------------------------------------------------------------------------------


def to_json(value: Value, limit: int = LIMIT) -> Json:
    """A described value as what `json.dumps` takes; see the module for the form."""
    return _json(value, _Bounds(limit))


def _json(value: Value, bounds: _Bounds) -> Json:
    if isinstance(value, Items | Pairs | Instance):
        if cut := bounds.cut(value):
            return {f"${cut}": True}
        bounds.path.append(id(value))
        try:
            return _json_of_container(value, bounds)
        finally:
            bounds.path.pop()
    bounds.left -= 1
    match value:
        case None | bool() | str():
            return value
        case int():
            return value if value.bit_length() <= _LARGE else {"$int": hex(value)}
        case float():
            return value if math.isfinite(value) else {"$float": repr(value)}
        case bytes():
            return {"$bytes": value.hex()}
        case Class(name):
            return {"$class": name}
        case Reference():
            return reference_to_json(value)
        case _:
            return {"$object": type(value).__name__}


def reference_to_json(reference: Reference) -> dict[str, Json]:
    """`{"$reference": oid, "class": name}`, with `$weak` or `$foreign` in its place, and `database`."""
    result: dict[str, Json] = {f"${reference.kind}": reference.oid.hex()}
    if reference.class_name is not None:
        result["class"] = reference.class_name
    if reference.database is not None:
        result["database"] = reference.database
    return result


def _json_of_container(value: Items | Pairs | Instance, bounds: _Bounds) -> Json:
    match value:
        case Items(kind, items):
            listed = _json_list(items, bounds)
            return {"$set": listed} if kind in ("set", "frozenset") else listed
        case Pairs(pairs):
            keys = [key for key, _ in pairs]
            if len({key for key in keys if isinstance(key, str) and not key.startswith("$")}) < len(keys):
                return {"$pairs": _json_pairs(pairs, bounds)}
            result: dict[str, Json] = {}
            for key, item in pairs:
                if bounds.left <= 0:
                    result["$more"] = True
                    break
                result[str(key)] = _json(item, bounds)
            return result
    made: dict[str, Json] = {"$object": value.class_name}
    if value.value is not None:
        made["value"] = value.value
    if value.arguments is not None:
        made["arguments"] = _json(value.arguments, bounds)
    if value.state is not None:
        made["state"] = _json(value.state, bounds)
    if value.items:
        made["items"] = _json_list(value.items, bounds)
    if value.pairs:
        made["pairs"] = _json_pairs(value.pairs, bounds)
    return made


def _json_list(items: list[Value], bounds: _Bounds) -> list[Json]:
    listed: list[Json] = []
    for item in items:
        if bounds.left <= 0:
            listed.append({"$more": True})
            break
        listed.append(_json(item, bounds))
    return listed


def _json_pairs(pairs: list[tuple[Value, Value]], bounds: _Bounds) -> list[Json]:
    listed: list[Json] = []
    for key, item in pairs:
        if bounds.left <= 0:
            listed.append({"$more": True})
            break
        listed.append([_json(key, bounds), _json(item, bounds)])
    return listed


# --- text --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Block:
    """Parts, each with what goes before it, between brackets. `size` is its length on one line."""

    opening: str
    parts: list[tuple[str, str | _Block]]
    closing: str
    separator: str
    size: int


def to_text(value: Value, width: int = 100, limit: int = LIMIT) -> Iterator[str]:
    """A described value as lines, in Python's notation where it has one; else `<in brackets>`."""
    return _lines("", _shape(value, _Bounds(limit)), "", "", width)


def _lines(before: str, shape: str | _Block, after: str, indent: str, width: int) -> Iterator[str]:
    if isinstance(shape, str) or len(indent) + len(before) + shape.size + len(after) <= width:
        yield f"{indent}{before}{_flat(shape)}{after}"
        return
    yield f"{indent}{before}{shape.opening}"
    for label, part in shape.parts:
        yield from _lines(label, part, shape.separator.rstrip(), f"{indent}  ", width)
    yield f"{indent}{shape.closing}{after}"


def _flat(shape: str | _Block) -> str:
    if isinstance(shape, str):
        return shape
    inner = shape.separator.join(label + _flat(part) for label, part in shape.parts)
    return f"{shape.opening}{' ' * (shape.opening[:1] == '<')}{inner}{shape.closing}"


def _block(opening: str, parts: list[tuple[str, str | _Block]], closing: str, separator: str = ", ") -> _Block:
    inner = sum(len(label) + (len(part) if isinstance(part, str) else part.size) for label, part in parts)
    size = len(opening) + inner + len(separator) * max(len(parts) - 1, 0) + len(closing) + 1
    return _Block(opening, parts, closing, separator, size)


def _shape(value: Value, bounds: _Bounds) -> str | _Block:
    if not isinstance(value, Items | Pairs | Instance):
        bounds.left -= 1
        return _leaf(value)
    if cut := bounds.cut(value):
        return "<itself>" if cut == "cycle" else "..."
    bounds.path.append(id(value))
    try:
        match value:
            case Items(kind, items):
                opening, closing = _BRACKETS[kind]
                closing = ",)" if kind == "tuple" and len(items) == 1 else closing
                return _block(opening, _listed(items, bounds), closing)
            case Pairs(pairs):
                return _block("{", _paired(pairs, bounds), "}")
        return _instance(value, bounds)
    finally:
        bounds.path.pop()


_BRACKETS: Final = {
    "list": ("[", "]"),
    "tuple": ("(", ")"),
    "set": ("set([", "])"),
    "frozenset": ("frozenset([", "])"),
}


def _instance(value: Instance, bounds: _Bounds) -> _Block:
    parts: list[tuple[str, str | _Block]] = []
    if value.value is not None:
        parts.append(("", value.value))
    if value.arguments is not None:
        parts.append(("arguments=", _shape(value.arguments, bounds)))
    if value.state is not None:
        parts.append(("state=", _shape(value.state, bounds)))
    if value.items:
        parts.append(("items=", _block("[", _listed(value.items, bounds), "]")))
    if value.pairs:
        parts.append(("pairs=", _block("{", _paired(value.pairs, bounds), "}")))
    return _block(f"<{printable(value.class_name)}", parts, ">", " ")


def _listed(items: list[Value], bounds: _Bounds) -> list[tuple[str, str | _Block]]:
    parts: list[tuple[str, str | _Block]] = []
    for at, item in enumerate(items):
        if bounds.left <= 0:
            parts.append(("", f"... ({len(items) - at:,} more)"))
            break
        parts.append(("", _shape(item, bounds)))
    return parts


def _paired(pairs: list[tuple[Value, Value]], bounds: _Bounds) -> list[tuple[str, str | _Block]]:
    parts: list[tuple[str, str | _Block]] = []
    for at, (key, item) in enumerate(pairs):
        if bounds.left <= 0:
            parts.append(("", f"... ({len(pairs) - at:,} more)"))
            break
        parts.append((f"{_flat(_shape(key, bounds))}: ", _shape(item, bounds)))
    return parts


def _leaf(value: Value) -> str:
    match value:
        case str() | bytes() if len(value) > LONGEST:
            unit = "characters" if isinstance(value, str) else "bytes"
            return f"{value[:LONGEST]!r}... ({len(value):,} {unit})"
        case int() if value.bit_length() > _LARGE:
            return hex(value)
        case Class(name):
            return f"<class {printable(name)}>"
        case Reference():
            return reference_to_text(value)
    return repr(value)


def reference_to_text(reference: Reference) -> str:
    """`<reference 0000000000000001 module.Class>`, or the like for weak and foreign ones."""
    parts = [str(reference.kind), reference.oid.hex()]
    if reference.class_name is not None:
        parts.append(printable(reference.class_name))
    if reference.database is not None:
        parts.append(f"in database {reference.database!r}")
    return f"<{' '.join(parts)}>"


def printable(text: str) -> str:
    """Text that comes from a store, fit for a line of a terminal: control characters are escaped."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)

"""Conditions on objects, as `objstore find --where` takes them: a small part of Python's expressions.

    balance > 100 and name == "ada"
    len(tags) >= 2 and "new" in tags and not has(closed)

A condition is parsed by Python's parser, of whose trees only what is named here is let through, and is applied to
what `formats.descriptions` makes of a record: nothing of the store is imported or called. What an object does not
have equals nothing, is neither lower nor higher than anything, and is false; so are comparisons of values of types
that do not compare.
"""

from __future__ import annotations

import ast
import operator
import re
import warnings
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from objstore.formats.descriptions import Class, Instance, Items, Pairs, Reference
from objstore.ids import Oid, Tid

LONGEST: Final = 10_000
"""Characters of a condition."""
_DEPTH: Final = 40
_STEPS: Final = 10_000
"""To how many levels, and in how many steps, two values of a record are compared with each other."""


class ExpressionError(Exception):
    """A condition that makes no sense. `column` is where, counted from 1."""

    def __init__(self, text: str, column: int, reason: str) -> None:
        super().__init__(f"column {column}: {reason}\n  {text}\n  {' ' * (column - 1)}^")
        self.column = column


class _Missing:
    """In place of what an object does not have."""


_MISSING: Final = _Missing()


class Subject:
    """An object that a condition is applied to: its decoded state, and what is known of its record."""

    def __init__(self, class_name: str, state: object, oid: Oid, serial: Tid, size: int) -> None:
        self._attributes = _attributes(state)
        self._facts = {
            "_p_oid": oid.hex(),
            "_p_serial": serial.hex(),
            "_p_class": class_name,
            "_p_size": size,
            "_p_state": _plain(state),
        }

    def name(self, name: str) -> Any:
        """What a name in the condition stands for: an attribute, else an item of the mapping that it wraps."""
        if name in self._facts:
            return self._facts[name]
        found = _item(self._attributes, name)
        return _item(_item(self._attributes, "data"), name) if found is _MISSING else found


Term = Callable[[Subject], Any]
Condition = Callable[[Subject], bool]


def parse(text: str) -> Condition:
    """A condition as a function of a `Subject`. Raises ExpressionError."""
    text = re.sub(r"\s", " ", text)
    if len(text) > LONGEST:
        raise ExpressionError(f"{text[:60]}...", 1, f"it has more than {LONGEST:,} characters")
    inner = text.strip()
    indent = len(text) - len(text.lstrip())
    if not inner:
        raise ExpressionError(text, 1, "it is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # Python's doubts about odd code are no concern of the one who searches
            tree = ast.parse(inner, mode="eval")
        term = _Parser(text, inner, indent).term(tree.body)
    except SyntaxError as error:
        column = indent + (error.offset or len(inner) + 1)  # 0 is where the text ends too early
        reason = "two values are compared with ==" if text[column - 1 : column] == "=" else error.msg
        raise ExpressionError(text, column, reason) from error
    except (MemoryError, RecursionError) as error:
        raise ExpressionError(text, 1, "it is nested too deeply") from error
    except ValueError as error:  # a character that no source may have, a number of too many digits
        raise ExpressionError(text, 1, f"it cannot be parsed: {error}") from error
    return lambda subject: _true(term(subject))


class _Parser:
    """Makes functions of the nodes of a parsed condition."""

    def __init__(self, text: str, inner: str, indent: int) -> None:
        self._text = text
        self._bytes = inner.encode()
        self._indent = indent

    def _error(self, node: ast.expr, reason: str) -> ExpressionError:
        before = len(self._bytes[: node.col_offset].decode(errors="ignore"))
        return ExpressionError(self._text, self._indent + before + 1, reason)

    def term(self, node: ast.expr) -> Term:
        """What a node says, as a function of the object."""
        match node:
            case ast.Constant(value=None | bool() | int() | float() | str() | bytes() as value):
                return lambda _: value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                return lambda _: -value
            case ast.Name(id=name):
                return lambda subject: subject.name(name)
            case ast.Attribute(value=inner, attr=name):
                owner = self.term(inner)
                return lambda subject: _item(owner(subject), name)
            case ast.Subscript(value=inner, slice=key):
                owner, index = self.term(inner), self.term(key)
                return lambda subject: _item(owner(subject), index(subject))
            case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
                parts = [self.term(item) for item in items]
                kind = {ast.List: "list", ast.Tuple: "tuple", ast.Set: "set"}[type(node)]
                return lambda subject: Items(kind, [part(subject) for part in parts])
            case ast.BoolOp(op=how, values=values):
                parts = [self.term(value) for value in values]
                decide = all if isinstance(how, ast.And) else any
                return lambda subject: decide(_true(part(subject)) for part in parts)
            case ast.UnaryOp(op=ast.Not(), operand=inner):
                operand = self.term(inner)
                return lambda subject: not _true(operand(subject))
            case ast.Compare():
                return self._comparison(node)
            case ast.Call():
                return self._call(node)
        raise self._error(node, f"{_KINDS.get(type(node), 'this')} has no place in a condition")

    def _comparison(self, node: ast.Compare) -> Term:
        terms = [self.term(each) for each in (node.left, *node.comparators)]
        for how, right in zip(node.ops, node.comparators, strict=True):
            if isinstance(how, ast.Is | ast.IsNot) and not (
                isinstance(right, ast.Constant) and right.value is None
            ):
                raise self._error(right, "`is` is for None; write == or !=")
        tests = [_COMPARISONS[type(how)] for how in node.ops]

        def compare(subject: Subject) -> bool:
            values = [term(subject) for term in terms]
            return all(test(values[at], values[at + 1]) for at, test in enumerate(tests))

        return compare

    def _call(self, node: ast.Call) -> Term:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in _FUNCTIONS:
            raise self._error(node, f"the functions are {', '.join(_FUNCTIONS)}")
        count, function = _FUNCTIONS[name]
        if len(node.args) != count or node.keywords:
            raise self._error(node, f"{name} takes {count} argument{'s'[: count - 1]}")
        if name == "matches":
            function = self._pattern(node.args[1])
        arguments = [self.term(each) for each in node.args]
        return lambda subject: function(*(argument(subject) for argument in arguments))

    def _pattern(self, node: ast.expr) -> Callable[..., Any]:
        """A regular expression, which must be written out, so that it is found to be wrong at once."""
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            raise self._error(node, "matches takes a regular expression in quotes")
        try:
            pattern = re.compile(node.value)
        except re.error as error:
            raise self._error(node, f"no regular expression: {error}") from error
        return lambda value, _: isinstance(value, str) and pattern.search(value) is not None


_KINDS: Final[Mapping[type[ast.expr], str]] = {
    ast.BinOp: "arithmetic",
    ast.UnaryOp: "arithmetic",
    ast.Lambda: "a function",
    ast.IfExp: "a choice",
    ast.JoinedStr: "an f-string",
    ast.NamedExpr: "an assignment",
    ast.Dict: "a dictionary",
    ast.Slice: "a slice",
    ast.ListComp: "a loop",
    ast.SetComp: "a loop",
    ast.DictComp: "a loop",
    ast.GeneratorExp: "a loop",
}


# --- values ------------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """A decoded value as a condition sees it: references as oids, dates as ISO text, decimals as numbers."""
    match value:
        case Reference(oid=oid):
            return oid.hex()
        case Class(name):
            return name
        case Instance(value=str(text)):
            return text
        case Instance(class_name="decimal.Decimal", arguments=Items(items=[str(digits)])):
            try:
                return Decimal(digits)
            except InvalidOperation:
                return value
    return value


def _attributes(state: object) -> Any:
    """The attributes in a state: it is a dictionary of them, or that and another one for slots."""
    match state:
        case Pairs():
            return state
        case Items("tuple", [Pairs() | None as first, Pairs() as second]):
            return Pairs([*(first.pairs if first is not None else []), *second.pairs])
    return _MISSING


def _item(owner: Any, key: Any) -> Any:
    """An attribute of an instance, an item of a dictionary, or one of a list by its number."""
    match owner:
        case Pairs(pairs):
            found = (
                value for name, value in reversed(pairs) if type(name) is type(key) and _same(_plain(name), key)
            )
            return _plain(next(found, _MISSING))
        case Instance(state=state, pairs=pairs):
            attribute = _item(_attributes(state), key)
            return _item(Pairs(pairs), key) if attribute is _MISSING else attribute
        case Items("list" | "tuple", items) if type(key) is int and -len(items) <= key < len(items):
            return _plain(items[key])
    return _MISSING


def _true(value: Any) -> bool:
    match value:
        case _Missing():
            return False
        case Items(_, items):
            return bool(items)
        case Pairs(pairs):
            return bool(pairs)
    return bool(value)


def _same(left: Any, right: Any) -> bool:
    return _Equality().holds(left, right)


class _Equality:
    """Compares two values, within bounds: those of a record may contain themselves, or be short and endless."""

    def __init__(self) -> None:
        self._steps = _STEPS

    def holds(self, left: Any, right: Any, depth: int = _DEPTH) -> bool:
        """Whether they are equal; no, once the bounds are reached."""
        self._steps -= 1
        if left is _MISSING or right is _MISSING or not depth or self._steps < 0:
            return False
        match left, right:
            case Items(), Items():
                return self._items(left, right, depth - 1)
            case Pairs(pairs), Pairs(others):
                if len(pairs) != len(others):
                    return False
                ours, theirs = ([Items("tuple", [*pair]) for pair in each] for each in (pairs, others))
                return self._items(Items("set", [*ours]), Items("set", [*theirs]), depth - 1)
        try:
            return bool(left == right)
        except InvalidOperation:  # a decimal that is no number
            return False

    def _items(self, left: Items, right: Items, depth: int) -> bool:
        ours, theirs = ([_plain(item) for item in each.items] for each in (left, right))
        unordered = left.kind in _SETS
        if unordered != (right.kind in _SETS) or len(ours) != len(theirs):
            return False
        if unordered:
            return all(any(self.holds(one, other, depth) for other in theirs) for one in ours)
        same = (self.holds(one, other, depth) for one, other in zip(ours, theirs, strict=True))
        return left.kind == right.kind and all(same)


_SETS: Final = frozenset({"set", "frozenset"})
_Number = int | float | Decimal


def _ordered(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def compare(left: Any, right: Any) -> bool:
        for kind in (_Number, str, bytes):
            if isinstance(left, kind) and isinstance(right, kind):
                try:
                    return test(left, right)
                except InvalidOperation:  # a decimal that is no number
                    return False
        return False

    return compare


def _contains(part: Any, whole: Any) -> bool:
    match whole:
        case str():
            return isinstance(part, str) and part in whole
        case bytes():
            return isinstance(part, bytes) and part in whole
        case Items(_, items):
            return any(_same(part, _plain(item)) for item in items)
        case Pairs(pairs):
            return any(_same(part, _plain(key)) for key, _ in pairs)
    return False


_COMPARISONS: Final[Mapping[type[ast.cmpop], Callable[[Any, Any], bool]]] = {
    ast.Eq: _same,
    ast.NotEq: lambda left, right: not _same(left, right),
    ast.Is: _same,
    ast.IsNot: lambda left, right: not _same(left, right),
    ast.Lt: _ordered(operator.lt),
    ast.LtE: _ordered(operator.le),
    ast.Gt: _ordered(operator.gt),
    ast.GtE: _ordered(operator.ge),
    ast.In: _contains,
    ast.NotIn: lambda part, whole: not _contains(part, whole),
}


def _length(value: Any) -> Any:
    match value:
        case str() | bytes():
            return len(value)
        case Items(_, items):
            return len(items)
        case Pairs(pairs):
            return len(pairs)
    return _MISSING


def _begins(value: Any, part: Any) -> bool:
    return type(value) in (str, bytes) and type(part) is type(value) and bool(value.startswith(part))


def _ends(value: Any, part: Any) -> bool:
    return type(value) in (str, bytes) and type(part) is type(value) and bool(value.endswith(part))


_FUNCTIONS: Final[Mapping[str, tuple[int, Callable[..., Any]]]] = {
    "has": (1, lambda value: value is not _MISSING),
    "len": (1, _length),
    "lower": (1, lambda value: value.lower() if isinstance(value, str) else value),
    "startswith": (2, _begins),
    "endswith": (2, _ends),
    "matches": (2, _contains),
}

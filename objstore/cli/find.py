"""`objstore find`: the objects of a class that meet a condition."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Final

import click

from objstore.cli.expressions import Condition, ExpressionError, Subject, parse
from objstore.cli.output import ProgressLine, count_text, json_line, line, note, time_text
from objstore.cli.parameters import json_option, store_argument
from objstore.cli.stores import opened
from objstore.errors import SerializationError
from objstore.formats.descriptions import Description, describe
from objstore.formats.pickles import class_name
from objstore.formats.rendering import LIMIT, to_json, to_text
from objstore.upkeep.current import Current, current_records

_VALUES: Final = 100
"""How many values of a state are shown in a line."""
_WIDTH: Final = 200


def parsed_condition(text: str) -> Condition:
    """A condition, as the type of an option."""
    try:
        return parse(text)
    except ExpressionError as error:
        raise click.BadParameter(str(error)) from error


@click.command(
    epilog="""Example: objstore find accounts 'app.Account' --where 'balance > 100 and name == "ada"'"""
)
@store_argument
@click.argument("class_pattern", metavar="CLASS")
@click.option(
    "--where",
    type=parsed_condition,
    metavar="CONDITION",
    multiple=True,
    help="Only those that meet a condition; may be given several times.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="NUMBER", help="Stop after so many.")
@json_option
def find(store: str, class_pattern: str, where: Sequence[Condition], limit: int | None, as_json: bool) -> None:
    """Find the current objects of a class.

    CLASS is its dotted name; * stands for anything ("app.models.*"). Each object is a line: oid, class, state, cut
    after 200 characters; objstore show tells all of it. Objects that nothing refers to are found until a pack
    removes them. Nothing is imported or executed.

    Of several conditions all must be met. One is written as in Python, of attributes, items (owner.name,
    data["key"], tags[0]), numbers, texts, lists, and or not, == != < <= > >= in, is None, and has len lower
    startswith endswith matches.

    Exit codes: 0, 2 (the condition makes no sense), 3, 6, 7.
    """
    search = _Search(class_pattern, where)
    shown = 0
    with opened(store) as source, ProgressLine(sys.stderr) as progress:
        for current in current_records(source, progress):
            description = search.look(current)
            if description is None:
                continue
            progress.clear()
            _print(current, description, as_json)
            shown += 1
            if shown == limit:
                break
    if not search.seen:
        note(f"no current object is of the class {class_pattern}; objstore classes lists those that there are")
    if search.undecoded:
        count = count_text(search.undecoded, "object")
        note(f"left out: {count} whose record cannot be decoded; see objstore check")


class _Search:
    """Tells which records fit. `seen` counts those of the class, `undecoded` those that make no sense."""

    def __init__(self, class_pattern: str, where: Sequence[Condition]) -> None:
        self._fits = self._matcher(class_pattern)
        self._where = where
        self.seen = 0
        self.undecoded = 0

    @staticmethod
    def _matcher(pattern: str) -> Callable[[str], bool]:
        if any(letter in pattern for letter in "*?["):
            return lambda name: fnmatchcase(name, pattern)
        return lambda name: name == pattern

    def look(self, current: Current) -> Description | None:
        """What the record holds, if it fits."""
        try:
            if not self._fits(class_name(current.data)):
                return None
            self.seen += 1
            found = describe(current.data)
        except SerializationError:
            self.undecoded += 1
            return None
        subject = Subject(found.class_name, found.state, current.oid, current.serial, len(current.data))
        return found if all(condition(subject) for condition in self._where) else None


def _print(current: Current, description: Description, as_json: bool) -> None:
    if as_json:
        json_line(
            {
                "oid": current.oid.hex(),
                "serial": current.serial.hex(),
                "time": time_text(current.serial),
                "class": description.class_name,
                "size": len(current.data),
                "state": to_json(description.state, LIMIT),
            }
        )
        return
    state = " ".join(to_text(description.state, sys.maxsize, _VALUES))
    text = f"{current.oid.hex()}  {description.class_name}  {state}"
    line(text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}...")

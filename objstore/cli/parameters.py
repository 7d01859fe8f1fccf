"""What the commands' arguments have in common: stores, oids, tids and times."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click

from objstore.ids import Oid, Tid, number, parse_oid, parse_tid, tid_at, tid_from

Function = TypeVar("Function", bound=Callable[..., Any])


def parsed_oid(text: str) -> Oid:
    """An oid in hexadecimal, as the type of an argument."""
    try:
        return parse_oid(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def parsed_tid(text: str) -> Tid:
    """A tid in hexadecimal, as the type of an argument."""
    try:
        return parse_tid(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def parsed_time(text: str) -> datetime:
    """A moment in ISO 8601, in UTC where it names no zone, as the type of an argument."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        example = "2024-12-31 or 2024-12-31T23:59:59+01:00"
        raise click.BadParameter(f"a time looks like {example}, not {text!r}") from error
    if not 1901 <= moment.year <= 9000:
        raise click.BadParameter(f"{text!r} is not within the years 1901 to 9000")
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def upto(moment: datetime) -> Tid:
    """The last tid that is shown as `moment`, or earlier: tids are finer than the microseconds shown."""
    return tid_from(number(tid_at(moment + timedelta(microseconds=1))) - 1)


def store_argument(function: Function) -> Function:
    """STORE, as every command but `init` takes it."""
    return click.argument("store", metavar="STORE")(function)


def json_option(function: Function) -> Function:
    """--json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(function)

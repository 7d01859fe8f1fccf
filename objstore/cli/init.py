"""`objstore init`: create a store. The only command that does."""

from __future__ import annotations

from typing import Any

import click

from objstore.cli.output import json_line, line
from objstore.cli.parameters import json_option
from objstore.cli.stores import opened
from objstore.contracts import Format, History
from objstore.engine.creation import DEFAULT_FORMAT, DEFAULT_HISTORY
from objstore.errors import NotAStoreError, OpenError, StoreMissingError


@click.command(epilog="Example: objstore init accounts --history full")
@click.argument("path", metavar="PATH")
@click.option(
    "--history",
    type=click.Choice([each.value for each in History]),
    help="full keeps every revision until it is packed; minimal keeps the current ones only.  "
    f"[default: {DEFAULT_HISTORY.value}]",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice([each.value for each in Format]),
    help=f"How the revisions are laid out in subdirectories.  [default: {DEFAULT_FORMAT.value}]",
)
@json_option
def init(path: str, history: str | None, format_: str | None, as_json: bool) -> None:
    """Create an empty store.

    PATH is an empty directory, or one that is not there yet. History and format stay what they are for the life
    of a store. Where PATH is a store already, this is an error and changes nothing. Exit codes: 0, 3 (PATH is
    something else), 6.
    """
    try:
        with opened(path) as store:
            raise OpenError(store.name, "there is a store here already; it was left as it is")
    except (StoreMissingError, NotAStoreError):  # creating one tells what is in the way
        pass
    given = {"history": history, "format": format_}
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    with opened(path, create=True, read_only=False, **chosen) as store:
        made = store.settings
        facts = {"history": made.history.value, "format": made.format.value, "identity": made.identity}
        if as_json:
            json_line({"path": store.name, **facts})
        else:
            line(f"created {store.name}: {', '.join(f'{name} {value}' for name, value in facts.items())}")

"""`objstore shell`: Python with a store at hand."""

from __future__ import annotations

import code
import importlib
import importlib.util
import sys
import traceback
from typing import Any

import click
import transaction

from objstore.cli.output import note
from objstore.cli.parameters import store_argument
from objstore.cli.stores import opened_database
from objstore.errors import ObjstoreError
from objstore.objects import DB

FAILED = 1


@click.command(epilog="Example: objstore shell accounts -c 'print(list(root()))'")
@store_argument
@click.option("--write", is_flag=True, help="Open the store for writing; else nothing can be changed.")
@click.option("-c", "piece", metavar="CODE", help="Run this piece of Python, and end.")
def shell(store: str, write: bool, piece: str | None) -> None:
    """Talk Python to a store.

    At hand are root, connection, db, and transaction: root.name is an item of the root, transaction.commit()
    commits if the store was opened with --write. IPython is used where it is installed.

    This imports the classes of the objects that you look at, from the current directory too, and runs what they do
    when they are loaded: no other command but undo does. Exit codes: 0, 1 (the piece of -c raised an exception),
    2, 3, 6, 7, or what SystemExit says.
    """
    sys.path.insert(0, "")
    with opened_database(store, read_only=not write) as db:
        connection = db.open()
        names = {"db": db, "connection": connection, "root": connection.root, "transaction": transaction}
        try:
            if piece is not None:
                _run(piece, names)
            else:
                _talk(db, names)
        finally:
            if connection.joined and write:
                note("what was not committed is given up")
            transaction.abort()
            connection.close()


def _run(piece: str, names: dict[str, Any]) -> None:
    scope = {"__name__": "__main__", **names}
    try:
        exec(compile(piece, "<-c>", "exec"), scope)  # noqa: S102 - that is what it is for
    except ObjstoreError:
        raise
    except Exception as error:
        traceback.print_exception(error.with_traceback(error.__traceback__ and error.__traceback__.tb_next))
        raise click.exceptions.Exit(FAILED) from error


def _talk(db: DB, names: dict[str, Any]) -> None:
    how = "nothing can be changed; --write lets you" if db.isReadOnly() else "transaction.commit() keeps changes"
    note(f"{db.getName()}: {how}. What you look at imports its class.")
    note(f"At hand: {', '.join(names)}. Leave with Ctrl-D.")
    if importlib.util.find_spec("IPython") is not None:
        importlib.import_module("IPython").start_ipython(argv=[], user_ns=names)
        return
    if sys.stdin.isatty() and importlib.util.find_spec("readline") is not None:  # line editing, names on Tab
        readline = importlib.import_module("readline")
        readline.set_completer(importlib.import_module("rlcompleter").Completer(names).complete)
        readline.parse_and_bind("tab: complete")
    code.interact(banner="", local=names, exitmsg="")

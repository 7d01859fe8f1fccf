"""`objstore undo`: a new transaction that takes earlier ones back."""

from __future__ import annotations

import click
import transaction

from objstore.cli.output import count_text, json_line, line, time_text
from objstore.cli.parameters import json_option, parsed_tid, store_argument
from objstore.cli.stores import opened_database
from objstore.ids import Tid


@click.command(epilog='Example: objstore undo accounts 03fa5c1e00000000 --message "wrong import"')
@store_argument
@click.argument("tids", type=parsed_tid, metavar="TID...", nargs=-1, required=True)
@click.option("-m", "--message", help="The description of the new transaction.  [default: undo TID...]")
@click.option("--user", metavar="NAME", default="", help="The user of the new transaction.")
@json_option
def undo(store: str, tids: tuple[Tid, ...], message: str | None, user: str, as_json: bool) -> None:
    """Take transactions back, in a new one.

    The objects that they wrote become what they were before. Where an object was changed again since, its class's
    own rule merges the changes (this imports the class), or nothing is undone. `objstore log` tells tids. Exit
    codes: 0, 2 (that history is not kept), 3, 4 (later changes are in the way), 6, 7.
    """
    manager = transaction.TransactionManager()
    with opened_database(store) as database:
        with manager as current:
            current.user = user
            current.note(message if message is not None else f"undo {' '.join(tid.hex() for tid in tids)}")
            database.undoMultiple(tids, current)
        tid = database.lastTransaction()
        done = database.store.transaction(tid)
    oids = done.oids if done is not None else ()
    if as_json:
        undone = [each.hex() for each in tids]
        json_line(
            {"tid": tid.hex(), "time": time_text(tid), "undone": undone, "oids": [oid.hex() for oid in oids]}
        )
    else:
        line(f"{tid.hex()}  {time_text(tid)}  {count_text(len(oids), 'object')} written")

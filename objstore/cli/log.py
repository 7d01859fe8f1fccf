"""`objstore log`: the transactions of a store."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import islice

import click

from objstore.cli.output import count_text, json_line, line, note, time_text
from objstore.cli.parameters import json_option, parsed_time, store_argument, upto
from objstore.cli.stores import opened
from objstore.contracts import History, Store
from objstore.formats.rendering import Json
from objstore.ids import MAX_TID, NO_TID, tid_at
from objstore.objects.details import UNDECODED, decode_extension
from objstore.revisions import Transaction


@click.command(epilog="Example: objstore log accounts -n 10 --since 2024-12-31 --user ada")
@store_argument
@click.option("-n", "limit", type=click.IntRange(min=0), metavar="NUMBER", help="At most so many.")
@click.option("--since", type=parsed_time, metavar="TIME", help="Not those before this time.")
@click.option("--until", type=parsed_time, metavar="TIME", help="Not those after this time.")
@click.option("--user", metavar="NAME", help="Those of this user only.")
@click.option("--oids", "with_oids", is_flag=True, help="List the oids that each transaction wrote.")
@json_option
def log(
    store: str,
    limit: int | None,
    since: datetime | None,
    until: datetime | None,
    user: str | None,
    with_oids: bool,
    as_json: bool,
) -> None:
    """List the transactions, the newest first.

    Each is a line: tid, time, number of objects written, user, description; with --json a line of JSON. A Minimal
    store keeps no transactions but those that wait in its journal. Exit codes: 0, 3, 6, 7.
    """
    with opened(store) as source:
        if source.history_mode is History.MINIMAL:
            note("this store is Minimal: it keeps only the transactions that wait in its journal")
        found = _transactions(source, since, until)
        for transaction in islice((each for each in found if user in (None, each.details.user)), limit):
            if as_json:
                json_line(transaction_json(transaction, with_oids=with_oids))
                continue
            line(_transaction_text(transaction))
            for oid in transaction.oids if with_oids else ():
                line(f"    {oid.hex()}")


def _transactions(store: Store, since: datetime | None, until: datetime | None) -> Iterator[Transaction]:
    first = tid_at(since) if since is not None else NO_TID
    for transaction in store.transactions(upto(until) if until is not None else MAX_TID):
        if transaction.tid < first:
            return
        yield transaction


def _transaction_text(transaction: Transaction) -> str:
    details = transaction.details
    objects = count_text(len(transaction.oids), "object")
    user = f"  {details.user}" if details.user else ""
    description = f"  {details.description}" if details.description else ""
    return f"{transaction.tid.hex()}  {time_text(transaction.tid)}  {objects}{user}{description}"


def transaction_json(transaction: Transaction, *, with_oids: bool) -> dict[str, Json]:
    """A transaction for programs. An extension that is a pickle is given undecoded, in hexadecimal."""
    details = transaction.details
    extension = decode_extension(details.extension)
    if isinstance(pickled := extension.get(UNDECODED), bytes):
        extension = {UNDECODED: pickled.hex()}
    result: dict[str, Json] = {
        "tid": transaction.tid.hex(),
        "time": time_text(transaction.tid),
        "user": details.user,
        "description": details.description,
        "extension": extension,
        "objects": len(transaction.oids),
    }
    if with_oids:
        result["oids"] = [oid.hex() for oid in transaction.oids]
    return result

"""`objstore history`: the revisions of one object."""

from __future__ import annotations

from itertools import islice

import click

from objstore.cli.output import json_line, line, size_text, time_text
from objstore.cli.parameters import json_option, parsed_oid, store_argument
from objstore.cli.stores import opened
from objstore.formats.rendering import Json
from objstore.ids import NO_TID, Oid
from objstore.revisions import RevisionSummary, Transaction


@click.command(epilog="Example: objstore history accounts 0 -n 5")
@store_argument
@click.argument("oid", type=parsed_oid, metavar="OID")
@click.option("-n", "limit", type=click.IntRange(min=0), metavar="NUMBER", help="At most so many.")
@json_option
def history(store: str, oid: Oid, limit: int | None, as_json: bool) -> None:
    """List the revisions of an object.

    Those that are kept, the newest first: tid, time, size, user, description; with --json a line of JSON each.
    Exit codes: 0, 3, 5 (no such object), 6, 7.
    """
    with opened(store) as source:
        for summary in islice(source.summaries(oid), limit):
            transaction = source.transaction(summary.tid)
            if as_json:
                json_line(_revision_json(summary, transaction))
            else:
                line(_revision_text(summary, transaction))


def _revision_text(summary: RevisionSummary, transaction: Transaction | None) -> str:
    parts = [
        summary.tid.hex(),
        time_text(summary.tid),
        "deleted" if summary.deleted else size_text(summary.size),
    ]
    if summary.blob is not None:
        parts.append(f"blob of {size_text(summary.blob.size)}")
    if summary.copied_from is not None:
        parts.append(f"undone to {summary.copied_from.hex()}")
    if transaction is not None:
        parts += [text for text in (transaction.details.user, transaction.details.description) if text]
    return "  ".join(parts)


def _revision_json(summary: RevisionSummary, transaction: Transaction | None) -> dict[str, Json]:
    return {
        "tid": summary.tid.hex(),
        "time": time_text(summary.tid),
        "previous": summary.previous.hex() if summary.previous != NO_TID else None,
        "size": summary.size,
        "blob_size": summary.blob.size if summary.blob is not None else None,
        "deleted": summary.deleted,
        "copied_from": summary.copied_from.hex() if summary.copied_from is not None else None,
        "user": transaction.details.user if transaction is not None else None,
        "description": transaction.details.description if transaction is not None else None,
    }

"""`objstore copy`: a new store from an old one, of any history mode and format."""

from __future__ import annotations

import os
import sys

import click

from objstore.cli.output import ProgressLine, count_text, json_line, line, size_text, tid_json, tid_text
from objstore.cli.parameters import json_option
from objstore.cli.stores import opened
from objstore.contracts import Format, History
from objstore.errors import UsageError
from objstore.machine.posix import PosixFilesystem
from objstore.objects.options import locate
from objstore.upkeep.copy import CopyReport
from objstore.upkeep.copy import copy as copy_store


@click.command(epilog="Example: objstore copy accounts accounts.now --history minimal --verify")
@click.argument("source", metavar="SRC")
@click.argument("dest", metavar="DEST")
@click.option(
    "--format",
    "format_",
    type=click.Choice([each.value for each in Format]),
    help="How the copy lays revisions out in subdirectories; as SRC does where it is left out.",
)
@click.option(
    "--history",
    type=click.Choice([each.value for each in History]),
    help="Which revisions the copy keeps; as SRC does where it is left out.",
)
@click.option("--verify", is_flag=True, help="Compare every record and transaction before the copy counts.")
@json_option
def copy(source: str, dest: str, format_: str | None, history: str | None, verify: bool, as_json: bool) -> None:
    """Copy a store into a new one.

    Oids, tids, records and, from full to full, transactions are the same in the copy. From full to minimal the
    current revisions are copied; from minimal to full history begins with them. SRC is opened for reading. DEST is
    not there yet, or empty, or what an interrupted copy has left: that is no store, and nothing opens it. Exit
    codes: 0, 2, 3 (SRC cannot be opened, or DEST is something else), 6 (the disk is full, or would be), 7 (a
    damaged record, or a difference), 130.
    """
    if not dest:
        raise UsageError("the path of the copy is empty")
    wanted = {name: value for name, value in (("history", history), ("format", format_)) if value is not None}
    target = locate(dest, wanted)
    with opened(source) as store, ProgressLine(sys.stderr) as progress:
        report = copy_store(
            store,
            os.path.abspath(target.path),
            PosixFilesystem(),
            history=target.store.history,
            format=target.store.format,
            verify=verify,
            progress=progress,
        )
    if as_json:
        json_line(
            {
                "path": report.path,
                "history": report.history.value,
                "format": report.format.value,
                "upto": tid_json(report.upto),
                "transactions": report.transactions,
                "revisions": report.revisions,
                "objects": report.objects,
                "bytes": report.bytes,
                "blobs": report.blobs,
                "blob_bytes": report.blob_bytes,
                "verified": report.verified,
                "seconds": round(report.seconds, 3),
            }
        )
    else:
        _print(report)


def _print(report: CopyReport) -> None:
    copied = ", ".join(
        (
            count_text(report.transactions, "transaction"),
            count_text(report.revisions, "revision"),
            count_text(report.objects, "object"),
        )
    )
    verb = "copied and verified" if report.verified else "copied"
    line(f"created {report.path}: history {report.history}, format {report.format}")
    line(f"{verb} {copied}: {size_text(report.bytes)} in {report.seconds:.1f} s")
    if report.blobs:
        line(f"with {count_text(report.blobs, 'blob')}: {size_text(report.blob_bytes)}")
    line(f"up to {tid_text(report.upto, 'nothing: the store is empty')}")

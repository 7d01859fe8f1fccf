"""`objstore import` and `objstore export`: data from and to ZODB's storages.

Both move in the same way, and differ in what a new DEST becomes: a store of objstore's own, or a FileStorage.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from objstore.cli.output import ProgressLine, count_text, json_line, line, note, size_text, tid_json, tid_text
from objstore.cli.parameters import json_option, parsed_tid
from objstore.contracts import Format, History
from objstore.errors import CorruptionError, ObjstoreError, OpenError, UsageError
from objstore.formats.rendering import Json
from objstore.ids import NO_TID, Tid
from objstore.objects.options import is_foreign


def _options(function: Any) -> Any:
    """What both commands take."""
    for option in (
        json_option,
        click.option("--verify", is_flag=True, help="Compare every record, blob and transaction afterwards."),
        click.option(
            "--blobs",
            type=click.Path(),
            metavar="DIRECTORY",
            help="Where the storage of ZODB's has its blobs, or is to have them.",
        ),
        click.option(
            "--since",
            type=parsed_tid,
            metavar="TID",
            help="Continue a DEST that ends with TID, although SRC was packed since. What DEST has of the time "
            "before is no difference then.",
        ),
        click.option("--current", is_flag=True, help="Only the current revision of each object."),
        click.argument("dest", metavar="DEST"),
        click.argument("source", metavar="SRC"),
    ):
        function = option(function)
    return function


@click.command("import", epilog="Example: objstore import var/Data.fs accounts --verify")
@_options
@click.option(
    "--format",
    "format_",
    type=click.Choice([each.value for each in Format]),
    help="How DEST lays revisions out in subdirectories, where it is new.",
)
@click.option(
    "--history",
    type=click.Choice([each.value for each in History]),
    help="Which revisions DEST keeps, where it is new; minimal takes only what is current.",
)
def import_(
    source: str,
    dest: str,
    current: bool,
    since: Tid | None,
    blobs: str | None,
    verify: bool,
    as_json: bool,
    format_: str | None,
    history: str | None,
) -> None:
    """Move the data of SRC, a storage of ZODB's, into the store DEST.

    SRC is a FileStorage's path, or a URL: file:///Data.fs, zeo://host:port, postgresql://user@host:port/database,
    whatever zodburi knows; or a store of objstore's. Oids, tids, records, blobs, users, descriptions and
    extensions are the same in DEST, which is created unless it is there. Where DEST has the beginning of SRC
    already, because a run was interrupted or SRC has gone on, only what is missing is moved. Exit codes: 0, 2
    (DEST has something else, or there are blobs and no directory for them), 3, 6, 7 (a difference was found, or
    SRC is damaged or cut off: what can be read before that is moved), 130.
    """
    from_, to = {"blobs": blobs}, {"history": history, "format": format_}
    _move(source, dest, from_, to, current=current, since=since, verify=verify, as_json=as_json)


@click.command("export", epilog="Example: objstore export accounts Data.fs --verify")
@_options
def export(
    source: str, dest: str, current: bool, since: Tid | None, blobs: str | None, verify: bool, as_json: bool
) -> None:
    """Move the data of the store SRC into DEST, a storage of ZODB's.

    DEST is the path of a FileStorage, which is created unless it is there, or a URL: file:///Data.fs,
    zeo://host:port, postgresql://user@host:port/database, whatever zodburi knows; or a directory with a store of
    objstore's. All else is as for `objstore import`. Exit codes: 0, 2, 3, 6, 7, 130.
    """
    if not is_foreign(dest) and not os.path.exists(dest):
        dest = f"file://{os.path.abspath(dest)}"
    _move(source, dest, {}, {"blobs": blobs}, current=current, since=since, verify=verify, as_json=as_json)


def _move(
    source: str,
    dest: str,
    from_: dict[str, str | None],
    to: dict[str, str | None],
    *,
    current: bool,
    since: Tid | None,
    verify: bool,
    as_json: bool,
) -> None:
    if not source or not dest:
        raise UsageError("the path of a store is empty")
    moving = _moving(source)
    with (
        moving.opened_source(source, **from_) as there,
        moving.opened_target(dest, **to) as target,
        ProgressLine(sys.stderr) as progress,
    ):
        mover = moving.Mover(there, target, current=current, since=since, progress=progress)
        try:
            report = mover.run(verify=verify)
        except (ObjstoreError, KeyboardInterrupt):
            _tell_what_is_moved(mover)
            raise
    if as_json:
        _print_json(report)
    else:
        _print(report)
    if report.unread is not None and report.unread.interrupted:
        note(f"objstore: {_uncommitted(report.unread)}")
    _raise_what_is_wrong(report)


def _tell_what_is_moved(mover: Any) -> None:
    if mover.transactions:
        count = count_text(mover.transactions, "transaction was", "transactions were")
        note(f"objstore: {count} moved, up to {mover.moved_upto.hex()}; the same command goes on behind that")


def _uncommitted(unread: Any) -> str:
    return (
        f"{unread.path} at byte {unread.offset}: what can be read ends here, and {unread.size:,} bytes follow, of "
        f"transaction {unread.tid.hex()}: its commit was interrupted, or is going on. Nobody was told that it is "
        "done, so nothing is missing"
    )


def _raise_what_is_wrong(report: Any) -> None:
    """Raises CorruptionError where there are differences, or the file of the source is damaged at its end."""
    damage = None
    if report.unread is not None and not report.unread.interrupted:
        damage = report.unread.error()
    if report.differences:
        if damage is not None:
            note(f"objstore: {damage}")
        first, count = report.differences[0], len(report.differences)
        raise CorruptionError(report.target, f"it differs from {report.source}: {first} ({count} told)")
    if damage is not None:
        raise damage


def _moving(source: str) -> Any:
    """The part that needs ZODB, imported when it is needed."""
    try:
        return importlib.import_module("objstore.compat.moving")
    except ModuleNotFoundError as error:
        reason = f"the package {error.name} is missing; install objstore[zodb], which moves ZODB's data"
        raise OpenError(source, reason) from error


def _print_json(report: Any) -> None:
    json_line(
        {
            "source": report.source,
            "target": report.target,
            "after": tid_json(report.after),
            "upto": tid_json(report.upto),
            "transactions": report.transactions,
            "revisions": report.revisions,
            "bytes": report.bytes,
            "blobs": report.blobs,
            "blob bytes": report.blob_bytes,
            "missing blobs": report.missing_blobs,
            "empty": report.empty,
            "verified": report.verified,
            "differences": [str(each) for each in report.differences],
            "unread": _unread_json(report.unread),
            "seconds": round(report.seconds, 3),
        }
    )


def _unread_json(unread: Any) -> Json:
    if unread is None:
        return None
    return {
        "offset": unread.offset,
        "bytes": unread.size,
        "tid": tid_json(unread.tid or NO_TID),
        "interrupted": unread.interrupted,
        "reason": unread.reason,
    }


def _print(report: Any) -> None:
    moved = f"{count_text(report.transactions, 'transaction')}, {count_text(report.revisions, 'revision')}"
    line(f"moved {moved} to {report.target}: {size_text(report.bytes)} in {report.seconds:.1f} s")
    if report.after != NO_TID:
        line(f"after {tid_text(report.after, '')}")
    line(f"up to {tid_text(report.upto, 'nothing: the source is empty')}")
    if report.blobs:
        line(f"with {count_text(report.blobs, 'blob')}: {size_text(report.blob_bytes)}")
    if report.missing_blobs:
        missing = count_text(report.missing_blobs, "blob")
        line(f"{missing} missing in {report.source}: only their records were moved")
    if report.empty:
        line(f"left out {count_text(report.empty, 'transaction')} without any record")
    if report.verified is not None and not report.differences:
        line(f"compared {count_text(report.verified, 'revision')}: all are the same")
    for difference in report.differences:
        line(f"differs: {difference}")

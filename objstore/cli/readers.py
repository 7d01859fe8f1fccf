"""`objstore readers`: who holds which snapshot of a store."""

from __future__ import annotations

import os
import time

import click

from objstore.cli.output import count_text, json_line, line, note, time_text
from objstore.cli.parameters import json_option, store_argument
from objstore.engine.membership import shared_board
from objstore.errors import StoreMissingError
from objstore.formats.layouts import HomeDirectory
from objstore.ids import tid_from
from objstore.machine.board import Board, Reader
from objstore.machine.posix import PosixFilesystem
from objstore.objects.options import locate


@click.command(epilog="Example: objstore readers accounts --clear-stale")
@store_argument
@click.option("--clear-stale", is_flag=True, help="Free what processes hold that have died.")
@click.option(
    "--expire",
    type=click.IntRange(min=0),
    metavar="SECONDS",
    help="Take the snapshots from their readers that have been held for so long, or longer.",
)
@json_option
def readers(store: str, clear_stale: bool, expire: int | None, as_json: bool) -> None:
    """List the snapshots that processes hold.

    For each, the oldest first: pid, age, snapshot and its time, and how many transactions it keeps from being
    forgotten, as far as the board knows them. The process may have died ("dead": the next flush frees it) or
    have lost its snapshot ("expired"): because it held back too much, or by --expire, which lets a pack go on
    that it held up. Who reads from an expired snapshot is told with SnapshotTooOldError, and begins again. With
    --json a line of JSON each. Exit codes: 0, 2, 3, 6.
    """
    directory, filesystem = HomeDirectory(os.path.abspath(locate(store, {}).path)), PosixFilesystem()
    if not filesystem.exists(directory.settings):
        raise StoreMissingError(directory.path)
    if not filesystem.exists(directory.board):
        return
    board = shared_board(directory, filesystem)
    if clear_stale:
        note(f"freed the places of {board.clear_stale()} processes that have died")
    if expire is not None:
        taken = board.expire_held_since(int(time.time()) - expire)
        note(f"{count_text(taken, 'snapshot')} taken from {'its reader' if taken == 1 else 'their readers'}")
    for reader in sorted(board.readers(), key=lambda reader: (reader.snapshot, reader.pid)):
        _print(board, reader, as_json)


def _print(board: Board, reader: Reader, as_json: bool) -> None:
    snapshot = tid_from(reader.snapshot)
    age = max(0, int(time.time()) - reader.since)
    state = "expired" if reader.expired else "dead" if not reader.alive else "alive"
    newer = board.newer_than(reader.snapshot)
    if as_json:
        json_line(
            {
                "pid": reader.pid,
                "age": age,
                "snapshot": snapshot.hex(),
                "time": time_text(snapshot),
                "newer_transactions": newer,
                "state": state,
            }
        )
    else:
        line(f"{reader.pid}  {age} s  {snapshot.hex()}  {time_text(snapshot)}  {newer} newer  {state}")

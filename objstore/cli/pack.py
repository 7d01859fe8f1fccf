"""`objstore pack`: drop the history, and the objects, that nobody needs any more."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

import click

from objstore.cli.output import ProgressLine, count_text, json_line, line, size_text, tid_json, time_text
from objstore.cli.parameters import json_option, parsed_time, store_argument, upto
from objstore.cli.stores import opened
from objstore.contracts import History, PackReport
from objstore.ids import Tid
from objstore.upkeep.pacing import Pace


@click.command(epilog="Example: objstore pack accounts --days 30 --dry-run")
@store_argument
@click.option(
    "--days",
    type=click.FloatRange(min=0),
    metavar="NUMBER",
    help="Keep the history of so many days.",
)
@click.option("--time", "moment", type=parsed_time, metavar="TIME", help="Keep the history since this time.")
@click.option("--dry-run", is_flag=True, help="Tell what would go, and remove nothing.")
@click.option(
    "--throttle",
    type=click.FloatRange(min=0, max=1, min_open=True),
    default=1.0,
    metavar="SHARE",
    help="Work for no more than this share of the time, such as 0.2; without it, as fast as it goes.",
)
@json_option
def pack(
    store: str, days: float | None, moment: datetime | None, dry_run: bool, throttle: float, as_json: bool
) -> None:
    """Drop what nobody needs any more.

    That is: revisions that were superseded by a time, and objects that nothing refers to. A Full store wants
    --days or --time, because what was packed away cannot be undone or looked at again; in a Minimal store there is
    no history to drop. An interrupted pack leaves the store sound, and can be run again. Exit codes: 0, 2, 3, 6,
    7 (a damaged record; nothing was removed), 130.
    """
    with opened(store, read_only=False) as target:
        if days is not None and moment is not None:
            raise click.UsageError("--days and --time exclude each other")
        if days is None and moment is None and target.history_mode is History.FULL:
            raise click.UsageError("say how much history to keep: --days NUMBER or --time TIME")
        with ProgressLine(sys.stderr) as progress:
            bound = upto(moment) if moment is not None else _days_ago(days or 0.0)
            report = target.pack(bound, dry_run=dry_run, progress=Pace(throttle, progress))
    if as_json:
        json_line(
            {
                "upto": tid_json(report.upto),
                "dry_run": report.dry_run,
                "objects_removed": report.objects_removed,
                "revisions_removed": report.revisions_removed,
                "transactions_removed": report.transactions_removed,
                "blobs_removed": report.blobs_removed,
                "bytes_freed": report.bytes_freed,
                "objects_kept": report.objects_kept,
                "seconds": round(report.seconds, 3),
            }
        )
    else:
        _print(report)


def _days_ago(days: float) -> Tid:
    now = datetime.now(UTC)
    earliest = datetime(1901, 1, 1, tzinfo=UTC)
    return upto(now - timedelta(days=days) if days < (now - earliest).days else earliest)


def _print(report: PackReport) -> None:
    verb = "would remove" if report.dry_run else "removed"
    removed = ", ".join(
        (
            count_text(report.objects_removed, "object"),
            count_text(report.revisions_removed, "revision"),
            count_text(report.transactions_removed, "transaction"),
            *([count_text(report.blobs_removed, "blob")] if report.blobs_removed else []),
        )
    )
    line(f"packed to {time_text(report.upto)} in {report.seconds:.1f} s" if not report.dry_run else "dry run")
    line(f"{verb} {removed}: {size_text(report.bytes_freed)}")
    line(f"{count_text(report.objects_kept, 'object')} kept")

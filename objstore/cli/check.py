"""`objstore check`: everything that is wrong with a store."""

from __future__ import annotations

import sys
from collections import Counter

import click

from objstore.cli.output import ProgressLine, count_text, json_line, line
from objstore.cli.parameters import json_option, store_argument
from objstore.cli.stores import opened
from objstore.contracts import Finding
from objstore.upkeep.check import KINDS
from objstore.upkeep.check import check as find

FOUND = 1


@click.command(epilog="Example: objstore check accounts --ignore unreachable")
@store_argument
@click.option("--ignore", "ignored", type=click.Choice(sorted(KINDS)), multiple=True, help="Leave out this kind.")
@click.option("--blobs", is_flag=True, help="Read the data of all blobs too, and not only look at their lengths.")
@json_option
def check(store: str, ignored: tuple[str, ...], blobs: bool, as_json: bool) -> None:
    """Tell everything that is wrong with a store.

    All of it is read (the data of blobs with --blobs), and nothing is changed. Each finding is a line: its kind,
    the path, what is wrong, and the object and transaction; with --json a line of JSON. Exit codes: 0 (nothing
    found), 1 (something found), 3, 6, 7.
    """
    counts: Counter[str] = Counter()
    with opened(store, tolerant=True) as source, ProgressLine(sys.stderr) as progress:
        for finding in find(source, progress, blobs=blobs):
            if finding.kind in ignored:
                continue
            counts[finding.kind] += 1
            progress.clear()
            if as_json:
                json_line(_finding_json(finding))
            else:
                line(_finding_text(finding))
    if not as_json:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(counts.items()))
        line(f"{count_text(counts.total(), 'finding')}: {kinds}" if counts else "nothing found")
    if counts:
        raise click.exceptions.Exit(FOUND)


def _finding_text(finding: Finding) -> str:
    parts = [f"{finding.kind}: {finding.path}: {finding.message}"]
    if finding.oid is not None:
        parts.append(f"object {finding.oid.hex()}")
    if finding.tid is not None:
        parts.append(f"tid {finding.tid.hex()}")
    return ", ".join(parts)


def _finding_json(finding: Finding) -> dict[str, str | None]:
    return {
        "kind": finding.kind,
        "path": finding.path,
        "message": finding.message,
        "oid": finding.oid.hex() if finding.oid is not None else None,
        "tid": finding.tid.hex() if finding.tid is not None else None,
    }

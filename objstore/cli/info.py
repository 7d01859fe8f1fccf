"""`objstore info`: what a store is, and how it stands."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import click

from objstore.cli.output import ProgressLine, count_text, facts, json_line, size_text, tid_json, tid_text
from objstore.cli.parameters import json_option, store_argument
from objstore.cli.stores import opened
from objstore.contracts import Filesystem, Format, Progress
from objstore.engine.store import DirectoryStore
from objstore.formats.layouts import parse_blob_name, parse_segment_name, parse_waiting_blob_name
from objstore.formats.rendering import Json


class Fact(NamedTuple):
    """Something that a store tells of itself, for people and for programs."""

    name: str
    text: str
    value: Json


@click.command(epilog="Example: objstore info accounts --count")
@store_argument
@click.option(
    "--count", "counting", is_flag=True, help="Count objects and revisions, which looks at each of them."
)
@click.option("--quick", is_flag=True, help="Leave out the size on the disk, which looks at each file.")
@json_option
def info(store: str, counting: bool, quick: bool, as_json: bool) -> None:
    """Tell what a store is, and how it stands.

    That is: its history mode, format and identity, the last transaction, what waits in the journal, up to where
    it was flushed and packed, and how much of the disk it takes. Exit codes: 0, 3 (it cannot be opened), 6 and 7
    (the disk).
    """
    with opened(store) as source, ProgressLine(sys.stderr) as progress:
        found = _facts(source)
        if not quick:
            found += _disk(source, progress)
        if counting:
            found += _counts(source, progress)
    if as_json:
        json_line({fact.name.replace(" ", "_"): fact.value for fact in found})
    else:
        facts((fact.name, fact.text) for fact in found)


def _facts(store: DirectoryStore) -> list[Fact]:
    settings, statistics = store.settings, store.statistics()
    waiting, volume = int(statistics["journal_transactions"]), int(statistics["journal_bytes"])
    last, flushed, packed = store.last_tid(), store.flushed, store.packed_upto()
    return [
        Fact("path", store.name, store.name),
        Fact("history", settings.history.value, settings.history.value),
        Fact("format", settings.format.value, settings.format.value),
        Fact("identity", settings.identity, settings.identity),
        Fact("last transaction", tid_text(last, "none yet"), tid_json(last)),
        Fact(
            "journal",
            f"{count_text(waiting, 'transaction')} waiting, {size_text(volume)}",
            {"transactions": waiting, "bytes": volume},
        ),
        Fact("flushed upto", tid_text(flushed, "nothing yet"), tid_json(flushed)),
        Fact("packed upto", tid_text(packed, "never"), tid_json(packed)),
    ]


def _disk(store: DirectoryStore, progress: Progress) -> list[Fact]:
    """Files and how much of the disk they occupy, without directories; how many are segments, or blobs."""
    files = allocated = blobs = volume = 0
    segments: Counter[str] = Counter()
    for path in _files(store.filesystem, store.directory.path):
        try:
            allocated += store.filesystem.allocated_bytes(path)
        except FileNotFoundError:  # a writer has moved or removed it since
            continue
        files += 1
        directory, _, name = path.rpartition("/")
        if parse_blob_name(name) is not None or parse_waiting_blob_name(name) is not None:
            with suppress(FileNotFoundError):
                volume += store.filesystem.size(path)
                blobs += 1
        segments[directory] += parse_segment_name(name) is not None
        progress("files", files, None)
    found = [
        Fact(
            "disk",
            f"{size_text(allocated)} in {count_text(files, 'file')}",
            {"files": files, "bytes": allocated},
        )
    ]
    if blobs:
        text = f"{count_text(blobs, 'blob')}, {size_text(volume)}"
        found.append(Fact("blobs", text, {"count": blobs, "bytes": volume}))
    if store.settings.format is Format.SEGMENTED:
        count, most = segments.total(), max(segments.values(), default=0)
        text = f"{count_text(count, 'segment')}, at most {most} in a directory"
        found.append(Fact("segments", text, {"count": count, "most in a directory": most}))
    return found


def _files(filesystem: Filesystem, top: str) -> Iterator[str]:
    pending = [top]
    while pending:
        path = pending.pop()
        try:
            entries = filesystem.entries(path)
        except FileNotFoundError:  # likewise
            continue
        for entry in entries:
            if entry.is_directory:
                pending.append(f"{path}/{entry.name}")
            else:
                yield f"{path}/{entry.name}"


def _counts(store: DirectoryStore, progress: Progress) -> list[Fact]:
    """Objects that have at least one revision, and all the revisions of all of them."""
    waiting: dict[bytes, int] = {}
    for summary in store.waiting():
        waiting[summary.oid] = waiting.get(summary.oid, 0) + 1
    objects = revisions = 0
    for oid in store.home.oids():
        objects += 1
        revisions += sum(1 for _ in store.home.summaries(oid)) + waiting.pop(oid, 0)
        progress("objects", objects, None)
    objects, revisions = objects + len(waiting), revisions + sum(waiting.values())
    return [
        Fact("objects", f"{objects:,}", objects),
        Fact("revisions", f"{revisions:,}", revisions),
    ]

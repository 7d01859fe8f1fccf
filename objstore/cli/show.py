"""`objstore show`: one object, decoded for people, its class present or not."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from datetime import datetime

import click

from objstore.cli.output import count_text, facts, json_line, line, note, size_text, tid_text, time_text
from objstore.cli.parameters import json_option, parsed_oid, parsed_tid, parsed_time, store_argument
from objstore.cli.stores import find_revision, opened
from objstore.errors import SerializationError
from objstore.formats.descriptions import Description, describe
from objstore.formats.disassembly import disassemble
from objstore.formats.rendering import LIMIT, Json, reference_to_json, reference_to_text, to_json, to_text
from objstore.ids import NO_TID, Oid, Tid
from objstore.revisions import Revision


@click.command(epilog="Example: objstore show accounts 0 --at 2024-12-31T12:00")
@store_argument
@click.argument("oid", type=parsed_oid, metavar="OID")
@click.option("--tid", type=parsed_tid, metavar="TID", help="The revision that this transaction wrote, or found.")
@click.option("--at", type=parsed_time, metavar="TIME", help="The revision that was current at this time.")
@click.option("--disassemble", "listing", is_flag=True, help="Print the opcodes of the record's pickles instead.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="NUMBER",
    default=LIMIT,
    show_default=True,
    help="Show so many values.",
)
@json_option
def show(
    store: str, oid: Oid, tid: Tid | None, at: datetime | None, listing: bool, limit: int, as_json: bool
) -> None:
    """Show an object: class, references, state.

    The state is decoded without importing a class or executing the record: whatever is not plain data is shown
    as <module.Class ...> with what it would be made of. Exit codes: 0, 2 (the record makes no sense; see
    --disassemble), 3, 5 (no such object), 6, 7.
    """
    with opened(store) as source:
        revision, data = find_revision(source, oid, tid, at)
    if listing:
        _show_listing(revision, data, as_json)
    elif as_json:
        json_line(_facts_json(revision, data) | _description_json(describe(data), limit))
    else:
        _show_description(revision, data, limit)


def _show_listing(revision: Revision, data: bytes, as_json: bool) -> None:
    if as_json:
        json_line(_facts_json(revision, data) | {"disassembly": list(disassemble(data))})
        return
    for each in disassemble(data):
        line(each)


def _show_description(revision: Revision, data: bytes, limit: int) -> None:
    try:
        description = describe(data)
    except SerializationError:
        facts(_facts(revision, data))
        note("the state cannot be decoded; --disassemble shows how far the record makes sense")
        raise
    facts([*_facts(revision, data), ("class", description.class_name)])
    if description.arguments is not None:
        line("arguments:")
        _indented(to_text(description.arguments, _width(), limit))
    line(f"{count_text(len(description.references), 'reference')}:" if description.references else "no references")
    _indented(reference_to_text(reference) for reference in description.references)
    line("state:")
    _indented(to_text(description.state, _width(), limit))


def _indented(lines: Iterable[str]) -> None:
    for each in lines:
        line(f"  {each}")


def _width() -> int:
    return max(shutil.get_terminal_size((100, 0)).columns - 2, 40)


def _facts(revision: Revision, data: bytes) -> list[tuple[str, str]]:
    found = [("object", revision.oid.hex()), ("serial", tid_text(revision.tid, "none"))]
    if revision.previous != NO_TID:
        found.append(("previous", tid_text(revision.previous, "none")))
    if revision.copied_from is not None:
        found.append(("undone to", tid_text(revision.copied_from, "none")))
    if revision.blob is not None:
        found.append(("blob", size_text(revision.blob.size)))
    return [*found, ("size", size_text(len(data)))]


def _facts_json(revision: Revision, data: bytes) -> dict[str, Json]:
    return {
        "oid": revision.oid.hex(),
        "serial": revision.tid.hex(),
        "time": time_text(revision.tid),
        "previous": revision.previous.hex() if revision.previous != NO_TID else None,
        "copied_from": revision.copied_from.hex() if revision.copied_from is not None else None,
        "size": len(data),
        "blob_size": revision.blob.size if revision.blob is not None else None,
    }


def _description_json(description: Description, limit: int) -> dict[str, Json]:
    return {
        "class": description.class_name,
        "arguments": to_json(description.arguments, limit),
        "references": [reference_to_json(reference) for reference in description.references],
        "state": to_json(description.state, limit),
    }

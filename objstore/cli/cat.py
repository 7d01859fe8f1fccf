"""`objstore cat`: the bytes of one record."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import datetime

import click

from objstore.cli.output import line
from objstore.cli.parameters import parsed_oid, parsed_tid, parsed_time, store_argument
from objstore.cli.stores import find_revision, opened
from objstore.errors import UsageError
from objstore.formats.pickles import state_offset
from objstore.ids import Oid, Tid


@click.command(epilog="Example: objstore cat accounts 0 --hex")
@store_argument
@click.argument("oid", type=parsed_oid, metavar="OID")
@click.option("--tid", type=parsed_tid, metavar="TID", help="The revision that this transaction wrote, or found.")
@click.option("--at", type=parsed_time, metavar="TIME", help="The revision that was current at this time.")
@click.option("--state", "only_state", is_flag=True, help="The second pickle only, that of the state.")
@click.option(
    "--hex", "as_hex", is_flag=True, help="As lines of hexadecimal digits and text; `xxd -r` reverses it."
)
@click.option("--force", is_flag=True, help="Write binary data to a terminal, too.")
def cat(
    store: str, oid: Oid, tid: Tid | None, at: datetime | None, only_state: bool, as_hex: bool, force: bool
) -> None:
    """Write the bytes of a record to stdout.

    They are the pickle of the class, then that of the state, as they are stored; the newest record of the object,
    unless --tid or --at ask for another. Exit codes: 0, 2 (stdout is a terminal), 3, 5 (no such object), 6, 7.
    """
    out = sys.stdout.buffer
    if out.isatty() and not as_hex and not force:
        raise UsageError("a record is binary; redirect it, or use --hex, --force or `objstore show`")
    with opened(store) as source:
        _, data = find_revision(source, oid, tid, at)
    if only_state:
        data = data[state_offset(data) :]
    if not as_hex:
        out.write(data)
        out.flush()
        return
    for text in _dump(data):
        line(text)


def _dump(data: bytes) -> Iterator[str]:
    """Lines of offset, sixteen bytes in groups of two, and text, as `xxd` writes them."""
    for at in range(0, len(data), 16):
        part = data[at : at + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        yield f"{at:08x}: {part.hex(' ', -2):<39}  {text}"

"""`objstore classes`: how many objects of each class there are, and how large they are."""

from __future__ import annotations

import sys
from collections import defaultdict

import click

from objstore.cli.output import ProgressLine, count_text, json_line, line, note, size_text
from objstore.cli.parameters import json_option, store_argument
from objstore.cli.stores import opened
from objstore.errors import SerializationError
from objstore.formats.pickles import class_name
from objstore.upkeep.current import current_records


@click.command(epilog="Example: objstore classes accounts")
@store_argument
@json_option
def classes(store: str, as_json: bool) -> None:
    """Count the current objects of each class.

    For each class, the largest first: number of objects, bytes of their records, the largest record, name. Objects
    that nothing refers to count until a pack removes them. Only the first pickle of a record is followed, and
    nothing is imported. With --json a line of JSON each. Exit codes: 0, 3, 6, 7.
    """
    counts: defaultdict[str | None, list[int]] = defaultdict(lambda: [0, 0, 0])
    with opened(store) as source, ProgressLine(sys.stderr) as progress:
        for current in current_records(source, progress):
            found, size = counts[_class_name(current.data)], len(current.data)
            found[:] = found[0] + 1, found[1] + size, max(found[2], size)
    for name, (count, size, largest) in sorted(counts.items(), key=lambda item: (-item[1][1], item[0] or "")):
        if as_json:
            json_line({"class": name, "objects": count, "bytes": size, "largest": largest})
        else:
            counted, sizes = (
                count_text(count, "object"),
                f"{size_text(size):>11}, largest {size_text(largest):>11}",
            )
            line(f"{counted:>15}, {sizes}  {name or '(no class)'}")
    if not as_json:
        objects, volume = (sum(found[at] for found in counts.values()) for at in (0, 1))
        line(
            f"{count_text(objects, 'object')}, {size_text(volume)}, {count_text(len(counts), 'class', 'classes')}"
        )
    if None in counts:
        note("records whose first pickle names no class are counted as (no class); see objstore check")


def _class_name(data: bytes) -> str | None:
    try:
        return class_name(data)
    except SerializationError:  # a class that is itself an object, or a damaged pickle
        return None

"""Which home a history mode and a format ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from objstore.contracts import Filesystem, Format, History, Home
from objstore.engine.buckets import Others
from objstore.engine.segmented import SegmentedHome
from objstore.ids import Tid
from objstore.later import Later

if TYPE_CHECKING:
    from objstore.engine import full, minimal
else:
    full, minimal = Later("objstore.engine.full"), Later("objstore.engine.minimal")


def home_statistics(home: Home) -> dict[str, int]:
    """What a home has counted since it was opened, by the names of statistics."""
    if not isinstance(home, SegmentedHome):
        return {}
    counters = home.counters
    return {
        "segment_flushed_bytes": counters.flushed_bytes,
        "segment_merged_bytes": counters.merged_bytes,
        "segment_merges": counters.merges,
        "segment_merges_put_off": counters.merges_put_off,
    }


def make_home(
    filesystem: Filesystem,
    path: str,
    history: History,
    format: Format,
    flushed: Tid,
    others: Others | None = None,
) -> Home:
    """The home at `path`. `flushed` is the newest transaction that it is known to hold, with all before."""
    if format is Format.SEGMENTED:
        return SegmentedHome(filesystem, path, history, flushed, others)
    if history is History.FULL:
        return full.FullHome(filesystem, path, format)
    return minimal.MinimalHome(filesystem, path, format)

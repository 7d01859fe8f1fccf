"""What a result is worth nothing without: the machine, its disk, and how busy it was."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from datetime import UTC, datetime
from typing import Any

from places import filesystem_type, sync_seconds

_GIB = 2**30


def facts(directory: str) -> dict[str, Any]:
    """Of the machine, of the filesystem of `directory`, and of this moment."""
    syncs = sync_seconds(directory)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / _GIB:.1f} GiB",
        "filesystem": filesystem_type(directory),
        "append and fdatasync of 4 KiB": f"median {statistics.median(syncs) * 1e3:.3f} ms",
        "load": round(os.getloadavg()[0], 2),
        "command": " ".join(sys.argv),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()

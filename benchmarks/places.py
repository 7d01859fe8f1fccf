"""Where the stores of a run are made, and what the disk below is."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

_IN_MEMORY = {"tmpfs", "ramfs"}
_MOUNTS = "/proc/self/mountinfo"
_PROBES = 50


@dataclass(frozen=True, slots=True)
class Place:
    """Two directories of one peer: `scratch` for one workload alone, `shared` for stores that several read.

    The disk's syncs are to take `sync_delay` milliseconds longer than they do.
    """

    peer: str
    scratch: str
    shared: str
    sync_delay: float = 0.0

    def fresh(self, name: str) -> str:
        """An empty directory that is not there yet."""
        path = f"{self.scratch}/{name}"
        os.mkdir(path)
        return path


def filesystem_type(path: str) -> str:
    """The type of the filesystem that a path is on: "ext4", "tmpfs"; "unknown" where there is no /proc."""
    try:
        with open(_MOUNTS) as lines:
            mounts = [line.split() for line in lines]
    except OSError:
        return "unknown"
    wanted = os.path.realpath(path)
    best, found = "", "unknown"
    for fields in mounts:
        mount = fields[4].encode().decode("unicode_escape")
        inside = wanted == mount or wanted.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, found = mount, fields[fields.index("-") + 1]
    return found


def is_in_memory(path: str) -> bool:
    """Whether a sync is free there, so that numbers of commits would mean nothing."""
    return filesystem_type(path) in _IN_MEMORY


def allocated_bytes(path: str) -> int:
    """What a directory with all below it occupies on the disk, directories and preallocated files included."""
    total = os.lstat(path).st_blocks * 512
    with os.scandir(path) as entries:
        for entry in entries:
            inner = entry.is_dir(follow_symlinks=False)
            total += allocated_bytes(entry.path) if inner else entry.stat(follow_symlinks=False).st_blocks * 512
    return total


def sync_seconds(directory: str) -> list[float]:
    """How long it takes to append 4 KiB to a file and `fdatasync` it: what any durable commit pays, sorted."""
    path = f"{directory}/probe"
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
    try:
        seconds = []
        for _ in range(_PROBES):
            began = time.perf_counter()
            os.write(file, bytes(4096))
            os.fdatasync(file)
            seconds.append(time.perf_counter() - began)
    finally:
        os.close(file)
        os.unlink(path)
    return sorted(seconds)

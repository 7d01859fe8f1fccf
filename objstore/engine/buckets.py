"""Which directories of segments are open, and for how long.

An open directory has its segments mapped, each of which takes a descriptor. So only so many are kept: who
asks for another bucket may close one that nobody changes at the moment. Closing means to forget: a reader
keeps what it holds, and whoever asks again opens it again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from threading import Lock
from typing import Protocol

from objstore.contracts import Filesystem
from objstore.engine.segmentdir import SegmentDirectory
from objstore.formats.layouts import DETAILS_DIRECTORY, bucket_directory
from objstore.formats.segments import Kind
from objstore.ids import NO_TID, Tid

DETAILS = -1
"""The number that the details of transactions have among the buckets."""
MAX_OPEN_SEGMENTS = 256
"""How many segments are kept open; a bucket without any counts for one."""


class Others(Protocol):
    """What a home has to know of other processes."""

    @property
    def flushed_now(self) -> Tid:
        """The home holds every transaction up to this one."""

    @property
    def generation(self) -> int:
        """Counts the changes of the home by any process."""

    def changed_home(self) -> None:
        """Tell the others that files have been replaced, before these are removed."""


class _Nobody:
    flushed_now = NO_TID
    generation = 0

    def changed_home(self) -> None:
        """There is nobody to be told."""


class OpenBuckets:
    """The open directories of a home. Lookups take no lock where the bucket is open.

    `flushed` is the newest transaction that the home holds with all before it: segments with later ones were
    left by a flush that did not come to its end, and do not count.
    """

    def __init__(self, filesystem: Filesystem, path: str, flushed: Tid, others: Others | None = None) -> None:
        self.flushed = flushed
        self._others: Others = others if others is not None else _Nobody()
        self._filesystem = filesystem
        self._path = path
        self._open: dict[int, SegmentDirectory] = {}
        self._held: int | None = None
        self._lock = Lock()  # guards opening, closing and `flushed`; a leaf

    def get(self, bucket: int) -> SegmentDirectory:
        """The directory of a bucket, opened. Raises CorruptionError where a segment is damaged."""
        directory = self._open.get(bucket)
        if directory is not None:
            return directory
        with self._lock:
            directory = self._open.get(bucket)
            if directory is None:
                directory = self._opened(bucket)
                self._open[bucket] = directory
                self._close_some(but=bucket)
            return directory

    def _opened(self, bucket: int) -> SegmentDirectory:
        """A directory as it is at one moment: nobody removes a file before the generation has told of it."""
        while True:
            generation = self._others.generation
            self.flushed = max(self.flushed, self._others.flushed_now)
            directory = self._directory(bucket)
            try:
                directory.open(self.flushed)
            except FileNotFoundError:
                if generation == self._others.generation:
                    raise
            if generation == self._others.generation:
                return directory

    def _directory(self, bucket: int) -> SegmentDirectory:
        changing = self._others.changed_home
        if bucket == DETAILS:
            path, kind, number = f"{self._path}/{DETAILS_DIRECTORY}", Kind.DETAILS, 0
        else:
            path, kind, number = f"{self._path}/{bucket_directory(bucket)}", Kind.REVISIONS, bucket
        return SegmentDirectory(self._filesystem, path, kind, number, changing)

    def _close_some(self, but: int | None = None) -> None:
        """Close those opened first until not too many are open."""
        count = sum(max(1, len(directory.segments)) for directory in self._open.values())
        for bucket, directory in list(self._open.items()):
            if count <= MAX_OPEN_SEGMENTS:
                return
            if bucket not in (but, self._held, DETAILS):
                del self._open[bucket]
                count -= max(1, len(directory.segments))

    @contextlib.contextmanager
    def held(self, bucket: int) -> Iterator[SegmentDirectory]:
        """The directory of a bucket, kept open while inside, to be changed. One at a time."""
        with self._lock:
            self._held = bucket
        try:
            yield self.get(bucket)
        finally:
            with self._lock:
                self._held = None

    def show(self, written: Iterable[tuple[int, str]], upto: Tid) -> None:
        """Show segments, by bucket and path, that are durable, and with which all up to `upto` is there."""
        with self._lock:
            self.flushed = max(self.flushed, upto)
            for bucket, path in written:
                directory = self._open.get(bucket)
                if directory is None:
                    continue
                try:
                    directory.append(path)
                except OSError:  # no descriptor is left: who asks for the bucket next opens it anew
                    del self._open[bucket]
            self._close_some()

    def refresh(self, flushed: Tid) -> None:
        """Others have changed the home: look at it anew, with all up to `flushed`."""
        with self._lock:
            self.flushed = max(self.flushed, flushed)
            for bucket in [bucket for bucket in self._open if bucket != self._held]:
                del self._open[bucket]

    def forget(self, bucket: int) -> None:
        """Close a bucket unless it is being changed. What was looked at of its files leaves the process's memory,
        once no reader holds it.
        """
        with self._lock:
            if bucket != self._held:
                self._open.pop(bucket, None)

    def close(self) -> None:
        """Close all but what is being changed."""
        with self._lock:
            for bucket in [bucket for bucket in self._open if bucket != self._held]:
                del self._open[bucket]

    @property
    def count(self) -> int:
        """How many are open."""
        return len(self._open)

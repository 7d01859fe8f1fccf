"""One directory of segments: a bucket's, or that of the transactions' details.

Its segments cover ranges of transactions, one after the other. A new one is appended by each flush that
touches the directory; merging and packing replace some by one of a higher generation. Every change is: 1.
write the new segment under a temporary name and sync it; 2. rename it; 3. sync the directory; 4. show it to
readers; 5. remove what it replaces. A crash before 3 leaves what was there before, after it files that the
new one replaces, which is said by their names; both are swept before the next change of the directory.

Readers take the tuple of segments and need no lock: what was removed stays readable for who holds it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

from objstore.contracts import Filesystem
from objstore.formats.layouts import TEMPORARY, SegmentName, parse_segment_name
from objstore.formats.segments import Kind, Segment, SegmentWriter
from objstore.ids import Tid

Entries = Iterable[tuple[int, int, bytes | memoryview]]
"""The low part of the oid, the tid as a number, and the bytes of each entry, in order."""


class SegmentDirectory:
    """The segments of a directory, oldest first. Changed by one thread at a time."""

    def __init__(self, filesystem: Filesystem, path: str, kind: Kind, bucket: int) -> None:
        self.path = path
        self.kind = kind
        self.bucket = bucket
        self.segments: tuple[Segment, ...] = ()
        self.written = 0
        """Bytes written into it since it was opened."""
        self._names: dict[str, SegmentName] = {}
        self._leftovers: list[str] = []
        self._filesystem = filesystem

    def open(self, flushed: Tid) -> None:
        """Read which segments there are. Those of a flush that was not completed by `flushed` do not count.

        Raises CorruptionError where a segment that counts is damaged.
        """
        names, self._leftovers = self.survey(flushed)
        self._names = {f"{self.path}/{name}": name for name in names}
        self.segments = tuple(self._map(path) for path in self._names)

    def survey(self, flushed: Tid) -> tuple[list[SegmentName], list[str]]:
        """The segments that count, oldest first, and the names that a crash has left."""
        try:
            entries = self._filesystem.entries(self.path)
        except FileNotFoundError:
            return [], []
        names, leftovers = [], []
        for entry in entries:
            name = None if entry.is_directory else parse_segment_name(entry.name)
            if name is not None and name.first <= flushed:
                names.append(name)
            elif name is not None or entry.name.endswith(".seg" + TEMPORARY):
                leftovers.append(entry.name)
        counting = sorted(name for name in names if not any(other.replaces(name) for other in names))
        leftovers += [str(name) for name in names if name not in counting]
        return counting, leftovers

    def _sweep(self) -> None:
        """Remove what a crash has left, before anything else changes here.

        A flush that was not completed is repeated, and touches the same directories; and what was replaced
        must not come back when its replacement goes.
        """
        for name in self._leftovers:
            with contextlib.suppress(FileNotFoundError):
                self._filesystem.unlink(f"{self.path}/{name}")
        if self._leftovers:
            self._filesystem.sync_directory(self.path)
            self._leftovers = []

    def _map(self, path: str) -> Segment:
        return Segment(path, self._filesystem.map(path))

    # --- changing ---

    def write(self, first: Tid, last: Tid, generation: int, entries: Entries) -> str | None:
        """Steps 1 and 2: the path of a new segment; None, and no file, where there are no entries."""
        self._sweep()
        path = f"{self.path}/{SegmentName(first, last, generation)}"
        temporary = path + TEMPORARY
        with contextlib.suppress(FileNotFoundError):
            self._filesystem.unlink(temporary)
        try:
            with self._filesystem.create(temporary) as file:
                writer = SegmentWriter(file, self.kind, self.bucket)
                for low, tid, entry in entries:
                    writer.add(low, tid, entry)
                if writer.count:
                    self.written += writer.finish(first, last)
            if not writer.count:
                self._filesystem.unlink(temporary)
                return None
            self._filesystem.rename(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                self._filesystem.unlink(temporary)
            raise
        return path

    def append(self, path: str) -> None:
        """Step 4 for a flush: show a segment whose name is durable."""
        self._names = self._without(path) | {path: _name_of(path)}
        self.segments = (*(old for old in self.segments if old.path != path), self._map(path))

    def replace(self, old: tuple[Segment, ...], entries: Callable[[], Entries]) -> int:
        """Replace adjacent segments by one with the given entries; how many bytes became free.

        Durable on return, but for the removal of the old ones, which their names make up for.
        """
        generation = 1 + max(self._names[segment.path].generation for segment in old)
        path = self.write(old[0].first, old[-1].last, generation, entries())
        at = self.segments.index(old[0])
        before, after = self.segments[:at], self.segments[at + len(old) :]
        fresh: tuple[Segment, ...] = ()
        if path is not None:
            self._filesystem.sync_directory(self.path)
            fresh = (self._map(path),)
            self._names[path] = _name_of(path)
        self.segments = (*before, *fresh, *after)
        freed = 0
        for segment in old:
            freed += self._filesystem.allocated_bytes(segment.path)
            self._filesystem.unlink(segment.path)
            self._names.pop(segment.path)
        if path is None:
            self._filesystem.sync_directory(self.path)
            return freed
        return freed - self._filesystem.allocated_bytes(path)

    def _without(self, path: str) -> dict[str, SegmentName]:
        return {known: name for known, name in self._names.items() if known != path}


def _name_of(path: str) -> SegmentName:
    name = parse_segment_name(path.rpartition("/")[2])
    if name is None:
        raise ValueError(f"{path} is no segment")
    return name

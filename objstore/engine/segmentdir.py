"""One directory of segments: a bucket's, or that of the transactions' details.

Its segments cover ranges of transactions, one after the other. A new one is appended by each flush that touches
the directory; merging and packing replace some by one of a higher generation. Every change is: 0. sweep what
earlier changes have left; 1. write the new segment under a temporary name and sync it; 2. rename it; 3. sync
the directory; 4. show it to readers, those of other processes too; 5. remove what it replaces. A crash, or an
error, before 3 leaves what was there before, and after it files that the new one replaces, which is said by
their names. So there may be files that do not count; they are known, and are gone before anything else changes.

Readers take the tuple of segments and need no lock: what was removed stays readable for who holds it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

from objstore.contracts import Filesystem
from objstore.errors import CorruptionError
from objstore.formats.layouts import TEMPORARY, SegmentName, parse_segment_name
from objstore.formats.segments import Kind, Segment, SegmentWriter, Stretch
from objstore.ids import Tid

Entries = Iterable[Stretch]
"""All that a segment is to hold, in order."""


class SegmentDirectory:
    """The segments of a directory, oldest first. Changed by one thread at a time."""

    def __init__(
        self,
        filesystem: Filesystem,
        path: str,
        kind: Kind,
        bucket: int,
        replacing: Callable[[], None] = lambda: None,
    ) -> None:
        """`replacing` is called when segments were replaced and their files are about to be removed."""
        self._replacing = replacing
        self.path = path
        self.kind = kind
        self.bucket = bucket
        self.segments: tuple[Segment, ...] = ()
        self._leftovers: set[str] = set()  # names of files that do not count
        self._filesystem = filesystem

    def open(self, flushed: Tid) -> None:
        """Read which segments there are. Those of a flush that was not completed by `flushed` do not count.

        Raises CorruptionError where a segment that counts is damaged.
        """
        names, leftovers = self.survey(flushed)
        self._leftovers = set(leftovers)
        self.segments = tuple(self.read(f"{self.path}/{name}") for name in names)

    def survey(self, flushed: Tid) -> tuple[list[SegmentName], list[str]]:
        """The segments that count, oldest first, and the names of those that do not."""
        try:
            entries = self._filesystem.entries(self.path)
        except FileNotFoundError:
            return [], []
        names, leftovers = [], []
        for entry in entries:
            name = None if entry.is_directory else parse_segment_name(entry.name.removesuffix(TEMPORARY))
            if name is None:
                continue
            if name.last <= flushed and entry.name == str(name):
                names.append(name)
            else:
                leftovers.append(entry.name)
        counting = sorted(name for name in names if not any(other.replaces(name) for other in names))
        leftovers += [str(name) for name in names if name not in counting]
        return counting, leftovers

    def read(self, path: str) -> Segment:
        """A segment of this directory. Raises CorruptionError where it is damaged, or belongs elsewhere."""
        segment = Segment(path, self._filesystem.map(path))
        name = _meaning(path)
        if (segment.footer.kind, segment.footer.bucket) != (self.kind, self.bucket):
            raise CorruptionError(path, "this segment belongs into another directory")
        if (segment.first, segment.last) != (name.first, name.last):
            raise CorruptionError(path, "its footer tells of other transactions than its name says")
        return segment

    # --- changing ---

    def write(self, first: Tid, last: Tid, generation: int, entries: Entries) -> tuple[str, int] | None:
        """Steps 0 to 2: path and size of a new segment; None, and no file, where there are no entries."""
        self.sweep()
        name = str(SegmentName(first, last, generation))
        path, temporary = f"{self.path}/{name}", f"{self.path}/{name}{TEMPORARY}"
        self._leftovers |= {name, name + TEMPORARY}
        try:
            size = self._write_file(temporary, first, last, entries)
            if size:
                self._filesystem.rename(temporary, path)
                self._leftovers.discard(name + TEMPORARY)
                return path, size
        except BaseException:
            with contextlib.suppress(OSError):  # the first error is the one to report; the next change sweeps
                self.sweep()
            raise
        self.sweep()
        return None

    def _write_file(self, path: str, first: Tid, last: Tid, entries: Entries) -> int:
        """Its size; 0 where there are no entries."""
        with self._filesystem.create(path) as file:
            writer = SegmentWriter(file, self.kind, self.bucket)
            for stretch in entries:
                writer.extend(stretch)
            return writer.finish(first, last) if writer.count else 0

    def append(self, path: str) -> None:
        """Step 4 for a flush: show a segment whose name is durable."""
        segment = self.read(path)
        self._leftovers.discard(_name(path))
        self.segments = (*(old for old in self.segments if old.path != path), segment)

    def replace(self, old: tuple[Segment, ...], entries: Callable[[], Entries]) -> tuple[int, int]:
        """Replace adjacent segments by one with the given entries: the bytes written, and those that became
        free. Durable on return, but for the removal of the old ones, which their names make up for.
        """
        generation = 1 + max(_meaning(segment.path).generation for segment in old)
        first, last = min(segment.first for segment in old), max(segment.last for segment in old)
        written = self.write(first, last, generation, entries())
        # Also where nothing is written: what does not count must be gone for good before the old ones are.
        self._filesystem.sync_directory(self.path)
        at = self.segments.index(old[0])
        before, after = self.segments[:at], self.segments[at + len(old) :]
        freed = sum(self._filesystem.allocated_bytes(segment.path) for segment in old)
        fresh: tuple[Segment, ...] = ()
        if written is not None:
            fresh = (self.read(written[0]),)
            freed -= self._filesystem.allocated_bytes(written[0])
            self._leftovers.discard(_name(written[0]))
        self.segments = (*before, *fresh, *after)
        self._leftovers |= {_name(segment.path) for segment in old}
        self._replacing()
        self.sweep()
        if written is None:
            self._filesystem.sync_directory(self.path)
        return (written[1] if written is not None else 0), freed

    def sweep(self) -> None:
        """Step 0: remove what does not count.

        A flush that was not completed is repeated, and touches the same directories; and what was replaced
        must not come back when its replacement goes.
        """
        for name in sorted(self._leftovers):
            with contextlib.suppress(FileNotFoundError):
                self._filesystem.unlink(f"{self.path}/{name}")
            self._leftovers.discard(name)


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _meaning(path: str) -> SegmentName:
    name = parse_segment_name(_name(path))
    if name is None:
        raise ValueError(f"{path} is no segment")
    return name

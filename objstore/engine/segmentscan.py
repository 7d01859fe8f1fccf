"""Walking a segmented home from outside: which buckets there are, and what is wrong with what stands there."""

from __future__ import annotations

import re
from collections.abc import Iterator

from objstore.contracts import Filesystem, Finding
from objstore.engine.segmentdir import SegmentDirectory
from objstore.errors import CorruptionError
from objstore.formats import records
from objstore.formats.layouts import DETAILS_DIRECTORY, TEMPORARY, bucket_directory, parse_segment_name
from objstore.formats.segments import Kind, Segment, oid_in
from objstore.formats.transactions import decode_details
from objstore.ids import Tid, number

_UPPER, _LOWER = re.compile("[0-9a-f]{10}"), re.compile("[0-9a-f]{2}")


def listed_buckets(filesystem: Filesystem, path: str) -> Iterator[int]:
    """The buckets that have a directory, in order."""
    for upper in _directories(filesystem, path, _UPPER):
        for lower in _directories(filesystem, f"{path}/{upper}", _LOWER):
            yield int(upper + lower, 16)


def _directories(filesystem: Filesystem, path: str, form: re.Pattern[str]) -> list[str]:
    entries = filesystem.entries(path)
    return sorted(entry.name for entry in entries if entry.is_directory and form.fullmatch(entry.name))


def find_damage(filesystem: Filesystem, path: str, flushed: Tid) -> Iterator[Finding]:
    """What is wrong: foreign and left-over files, and segments that are not what was written."""
    for entry in filesystem.entries(path):
        if not entry.is_directory or not (entry.name == DETAILS_DIRECTORY or _UPPER.fullmatch(entry.name)):
            yield _foreign(f"{path}/{entry.name}")
    for upper in _directories(filesystem, path, _UPPER):
        for entry in filesystem.entries(f"{path}/{upper}"):
            if not entry.is_directory or not _LOWER.fullmatch(entry.name):
                yield _foreign(f"{path}/{upper}/{entry.name}")
    details = SegmentDirectory(filesystem, f"{path}/{DETAILS_DIRECTORY}", Kind.DETAILS, 0)
    yield from _directory_findings(filesystem, details, flushed)
    for bucket in listed_buckets(filesystem, path):
        place = f"{path}/{bucket_directory(bucket)}"
        directory = SegmentDirectory(filesystem, place, Kind.REVISIONS, bucket)
        yield from _directory_findings(filesystem, directory, flushed)


def _foreign(path: str) -> Finding:
    return Finding("foreign", path, "this is no file of the store")


def _directory_findings(filesystem: Filesystem, directory: SegmentDirectory, flushed: Tid) -> Iterator[Finding]:
    for entry in filesystem.entries(directory.path):
        meant = parse_segment_name(entry.name.removesuffix(TEMPORARY))
        if entry.is_directory or meant is None:
            yield _foreign(f"{directory.path}/{entry.name}")
    names, leftovers = directory.survey(flushed)
    for leftover in leftovers:
        yield Finding("leftover", f"{directory.path}/{leftover}", "an interrupted flush, merge or pack left this")
    for name in names:
        path = f"{directory.path}/{name}"
        try:
            segment = Segment(path, filesystem.map(path))
            if segment.first != name.first or segment.last != name.last:
                raise CorruptionError(path, "its footer tells of other transactions than its name")
            if segment.footer.kind is not directory.kind or segment.footer.bucket != directory.bucket:
                yield Finding("misplaced", path, "this segment belongs into another directory")
                continue
        except (OSError, CorruptionError) as error:
            yield Finding("checksum", path, str(error))
            continue
        yield from _entry_findings(segment, directory)


def _entry_findings(segment: Segment, directory: SegmentDirectory) -> Iterator[Finding]:
    previous = (-1, -1)
    for at in range(len(segment)):
        try:
            if directory.kind is Kind.DETAILS:
                key = (0, number(decode_details(bytes(segment.entry(at)), segment.path).tid))
            else:
                revision = records.decode(segment.buffer, segment.offset(at), segment.path)
                key = (segment.low(at), number(revision.tid))
                if revision.oid != oid_in(directory.bucket, segment.low(at)):
                    raise CorruptionError(segment.path, "another object's record stands in its place")
            if key[1] != segment.tids[at] or key <= previous:
                raise CorruptionError(segment.path, "the index does not fit what it leads to")
            previous = key
        except CorruptionError as error:
            oid = oid_in(directory.bucket, segment.low(at)) if directory.kind is Kind.REVISIONS else None
            yield Finding("checksum", segment.path, error.reason, oid, segment.tid(at))

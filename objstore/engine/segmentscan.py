"""Walking a segmented home from outside: which buckets there are, and what is wrong with what stands there."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator

from objstore.contracts import Filesystem, Finding
from objstore.engine.segmentdir import SegmentDirectory
from objstore.errors import CorruptionError
from objstore.formats import records
from objstore.formats.layouts import (
    DETAILS_DIRECTORY,
    TEMPORARY,
    SegmentName,
    parse_segment_name,
)
from objstore.formats.segments import Kind, Segment, oid_in
from objstore.formats.transactions import decode_details
from objstore.ids import number

_UPPER, _LOWER = "[0-9a-f]{10}", "[0-9a-f]{2}"


def listed_buckets(filesystem: Filesystem, path: str) -> Iterator[int]:
    """The buckets that have a directory, in order."""
    for upper in _directories(filesystem, path, _UPPER):
        for lower in _directories(filesystem, f"{path}/{upper}", _LOWER):
            yield int(upper + lower, 16)


def _directories(filesystem: Filesystem, path: str, form: str) -> list[str]:
    entries = filesystem.entries(path)
    return sorted(entry.name for entry in entries if entry.is_directory and re.fullmatch(form, entry.name))


Survey = Callable[[SegmentDirectory], tuple[list[SegmentName], list[str]]]
"""Tells which segments of a directory count, and what is left over."""


def find_damage(filesystem: Filesystem, path: str, survey: Survey) -> Iterator[Finding]:
    """What is wrong: foreign and left-over files, and segments that are not what was written."""
    uppers = yield from _listed(filesystem, path, _UPPER, DETAILS_DIRECTORY)
    details = SegmentDirectory(filesystem, f"{path}/{DETAILS_DIRECTORY}", Kind.DETAILS, 0)
    yield from _directory_findings(filesystem, details, survey)
    for upper in uppers:
        lowers = yield from _listed(filesystem, f"{path}/{upper}", _LOWER)
        for lower in lowers:
            place = f"{path}/{upper}/{lower}"
            directory = SegmentDirectory(filesystem, place, Kind.REVISIONS, int(upper + lower, 16))
            yield from _directory_findings(filesystem, directory, survey)


def _listed(filesystem: Filesystem, path: str, form: str, other: str = "") -> Generator[Finding, None, list[str]]:
    """The directories of a form, in order; a finding for all else but the `other` one."""
    try:
        entries = sorted(filesystem.entries(path), key=lambda entry: entry.name)
    except OSError as error:
        yield Finding("unreadable", path, error.strerror or str(error))
        return []
    names = []
    for entry in entries:
        if entry.is_directory and re.fullmatch(form, entry.name):
            names.append(entry.name)
        elif not entry.is_directory or entry.name != other:
            yield Finding("foreign", f"{path}/{entry.name}", "this is no file of the store")
    return names


def _directory_findings(filesystem: Filesystem, directory: SegmentDirectory, survey: Survey) -> Iterator[Finding]:
    try:
        names, leftovers = survey(directory)
        entries = filesystem.entries(directory.path)
    except FileNotFoundError:
        return  # nothing was written there yet
    except OSError as error:
        yield Finding("unreadable", directory.path, error.strerror or str(error))
        return
    for entry in entries:
        meant = parse_segment_name(entry.name.removesuffix(TEMPORARY))
        if entry.is_directory or meant is None:
            yield Finding("foreign", f"{directory.path}/{entry.name}", "this is no file of the store")
    for leftover in sorted(leftovers):
        path = f"{directory.path}/{leftover}"
        yield Finding("leftover", path, "an interrupted flush, merge or pack left this; it does not count")
    for name in names:
        yield from _segment_findings(directory, name)


def _segment_findings(directory: SegmentDirectory, name: SegmentName) -> Iterator[Finding]:
    path = f"{directory.path}/{name}"
    try:
        segment = directory.read(path)
    except FileNotFoundError:
        return  # merged away since it was listed
    except CorruptionError as error:
        kind = "misplaced" if "belongs" in error.reason else "name" if "name says" in error.reason else "checksum"
        yield Finding(kind, path, error.reason)
    except OSError as error:
        yield Finding("unreadable", path, error.strerror or str(error))
    else:
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

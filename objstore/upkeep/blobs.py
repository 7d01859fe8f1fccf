"""Blobs in upkeep: which of them a pack removes, and what is wrong with those that are there.

A blob belongs to the revision that its name says. That one is removed first, and the blob behind it: so a
crash never leaves a revision without its blob, but perhaps a blob without its revision, which nobody can
reach. A pack does not remember what it removed, but looks at every blob that there is: so it finds what
earlier ones have left.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from objstore.contracts import Entry, Finding
from objstore.engine.blobs import blob_place
from objstore.engine.store import DirectoryStore
from objstore.errors import BlobMissingError, CorruptionError
from objstore.formats.layouts import is_temporary_blob_name, parse_blob_name
from objstore.ids import Oid, Tid, number
from objstore.revisions import BlobFacts, RevisionSummary
from objstore.upkeep.byobject import divided
from objstore.upkeep.packing import Job
from objstore.upkeep.reachable import OidSet
from objstore.upkeep.use import Use

_LEFT = "no transaction has committed this blob; opening the store for writing removes it"


def remove_blobs(job: Job, doomed: OidSet) -> None:
    """Remove every blob up to the limit whose revision is not kept; in a dry run, count them."""
    target, counts = job.target, job.counts
    batch: list[tuple[Oid, Tid]] = []
    done = 0
    for oid, revisions in groupby(target.blobs_there(), key=lambda each: each[0]):
        if done % job.limits.step == 0:
            job.progress("removing blobs", done, None)
        done += 1
        old = [(tid, size) for _, tid, size in revisions if tid <= job.limit]
        if not old:
            continue
        kept: set[Tid] = set()
        if number(oid) not in doomed:
            summaries, _ = divided(target.committed(oid), job.limit, job.protected)
            kept = {summary.tid for summary in summaries}
        for tid, size in old:
            if tid not in kept:
                counts.blobs += 1
                counts.freed += size if job.dry_run else 0
                batch.append((oid, tid))
        if len(batch) >= job.limits.batch:
            _remove(job, batch)
    _remove(job, batch)
    if done:
        job.progress("removing blobs", done, done)


def _remove(job: Job, batch: list[tuple[Oid, Tid]]) -> None:
    if batch and not job.dry_run:
        job.counts.freed += job.target.remove_blobs(batch)
    batch.clear()


class BlobCheck:
    """Tells what is wrong with a store's blobs. With `contents` all of each is read, else its length looked at."""

    def __init__(self, store: DirectoryStore, use: Use, *, contents: bool) -> None:
        self._store = store
        self._use = use
        self._filesystem = store.filesystem
        self._contents = contents

    def revision(self, summary: RevisionSummary) -> Iterator[Finding]:
        """The blob of a revision that counts must be there, as it was written."""
        meant = summary.blob
        if meant is None:
            return
        oid, tid = summary.oid, summary.tid
        path = self._store.blobs.final_path(oid, tid)
        try:
            found = self._facts(oid, tid, meant)
        except BlobMissingError:
            if self._belongs(oid, tid):  # still: a pack removes the revision first
                yield Finding("blob", path, "the data of a blob are missing", oid, tid)
        except OSError as error:
            yield Finding("unreadable", path, error.strerror or str(error), oid, tid)
        else:
            if found.size != meant.size:
                message = f"a blob has {found.size:,} bytes, not {meant.size:,} as its record says"
                yield Finding("blob", path, message, oid, tid)
            elif found.crc != meant.crc:
                yield Finding("blob", path, "the checksum of a blob is wrong", oid, tid)

    def _facts(self, oid: Oid, tid: Tid, meant: BlobFacts) -> BlobFacts:
        blobs = self._store.blobs
        return blobs.committed_facts(oid, tid) if self._contents else BlobFacts(blobs.size(oid, tid), meant.crc)

    # --- files ---

    def files(self, upto: Tid) -> Iterator[Finding]:
        """Files that are no blobs, or not where theirs is, or belong to no revision. What is later than `upto` may
        be at work."""
        directory = self._store.directory
        waiting = [directory.blobs]
        while waiting:
            place = waiting.pop()
            for entry in self._entries(place):
                path = f"{place}/{entry.name}"
                if path == directory.temporary_blobs:
                    yield from self._temporary_findings()
                elif entry.is_directory:
                    waiting.append(path)
                else:
                    yield from self._file_findings(place, entry.name, upto)

    def _entries(self, place: str) -> list[Entry]:
        try:
            return sorted(self._filesystem.entries(place), key=lambda entry: entry.name)
        except FileNotFoundError:
            return []

    def _temporary_findings(self) -> Iterator[Finding]:
        place = self._store.directory.temporary_blobs
        for entry in self._entries(place):
            path = f"{place}/{entry.name}"
            is_zodbs = path == self._store.directory.temporary_zodb_blobs
            if entry.is_directory and is_zodbs:
                for each in self._entries(path) if not self._use.noticed() else ():
                    yield Finding("leftover", f"{path}/{each.name}", _LEFT)
            elif entry.is_directory or not is_temporary_blob_name(entry.name):
                yield Finding("foreign", path, "this is no file of the store")
            elif not self._use.noticed():  # else somebody may be writing it
                yield Finding("leftover", path, _LEFT)

    def _file_findings(self, place: str, name: str, upto: Tid) -> Iterator[Finding]:
        path, found = f"{place}/{name}", parse_blob_name(name)
        if found is None:
            yield Finding("foreign", path, "this is no file of the store")
        elif place != blob_place(self._store.directory, self._store.settings.format, found.oid):
            yield Finding("misplaced", path, "a blob stands where it is not found", found.oid, found.tid)
        elif found.tid <= upto and not self._belongs(found.oid, found.tid) and self._filesystem.exists(path):
            message = "no revision has this blob, or none any more; a pack removes it"
            yield Finding("leftover", path, message, found.oid, found.tid)

    def _belongs(self, oid: Oid, tid: Tid) -> bool:
        """Whether there is such a revision, by what is known of other processes now."""
        try:
            self._store.last_tid()
            return any(summary.tid == tid for summary in self._store.committed(oid))
        except (CorruptionError, OSError):  # which was told elsewhere
            return True

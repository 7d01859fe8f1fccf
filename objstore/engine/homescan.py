"""What is wrong with a home of one file for each revision: names, places, contents and pointers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from objstore.contracts import Filesystem, Finding, Home
from objstore.engine.homefiles import HomeFiles
from objstore.errors import CorruptionError
from objstore.formats.layouts import (
    TEMPORARY,
    CurrentName,
    DataName,
    HomeName,
    RevisionName,
    TransactionName,
    current_name,
    parse_home_name,
    revision_name,
)

Reader = Callable[[str, HomeName], Iterator[Finding]]
"""Reads the file at a path, which has this name, and tells what is wrong."""


def find_full_damage(held: HomeFiles, home: Home) -> Iterator[Finding]:
    """What is wrong with a Full home."""

    def read(path: str, name: HomeName) -> Iterator[Finding]:
        directory = path.rpartition("/")[0]
        match name:
            case RevisionName(oid, tid):
                held.revision(path, oid, tid)
                current = home.current(oid)
                if current is not None and current < tid:
                    pointer = f"{directory}/{current_name(oid)}"
                    yield Finding("pointer", pointer, f"it is older than {tid.hex()}, which is there", oid, tid)
                if current is None:
                    yield Finding("pointer", path, "no .c file leads to this object's revisions", oid, tid)
            case CurrentName(oid):
                current = home.current(oid)
                if current and not held.filesystem.exists(f"{directory}/{revision_name(oid, current)}"):
                    yield Finding("pointer", path, f"it names {current.hex()}, which is missing", oid, current)
            case TransactionName(tid):
                home.transaction(tid)
            case DataName():
                yield Finding("foreign", path, "a Full home has no .d files")

    return _scan(held, read)


def find_minimal_damage(held: HomeFiles) -> Iterator[Finding]:
    """What is wrong with a Minimal home."""

    def read(path: str, name: HomeName) -> Iterator[Finding]:
        match name:
            case DataName(oid):
                held.revision(path, oid)
            case _:
                yield Finding("foreign", path, "a Minimal home has .d files only")

    return _scan(held, read)


def _scan(held: HomeFiles, read: Reader) -> Iterator[Finding]:
    for found in _files(held.filesystem, held.path):
        if isinstance(found, Finding):
            yield found
            continue
        directory, name = found
        path = f"{directory}/{name}"
        if name.endswith(TEMPORARY) and parse_home_name(name.removesuffix(TEMPORARY)) is not None:
            yield Finding("leftover", path, "an interrupted flush left this; it may be removed")
            continue
        meant = parse_home_name(name)
        if meant is None:
            yield Finding("foreign", path, "this is no file of the store")
            continue
        place = held.place(meant)
        if directory != place:
            yield Finding("misplaced", path, f"a file of this name belongs into {place}")
            continue
        try:
            yield from read(path, meant)
        except CorruptionError as error:
            kind = "name" if "name says" in error.reason else "checksum"
            yield Finding(kind, error.path, error.reason, error.oid, error.tid)
        except OSError as error:
            yield Finding("unreadable", path, error.strerror or str(error))


def _files(filesystem: Filesystem, path: str) -> Iterator[tuple[str, str] | Finding]:
    """The directory and the name of every file below `path`; a finding where a directory cannot be read."""
    try:
        entries = sorted(filesystem.entries(path), key=lambda entry: entry.name)
    except OSError as error:
        yield Finding("unreadable", path, error.strerror or str(error))
        return
    for entry in entries:
        if entry.is_directory:
            yield from _files(filesystem, f"{path}/{entry.name}")
        else:
            yield path, entry.name

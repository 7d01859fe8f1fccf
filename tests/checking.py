"""What the tests of the check share: stores to damage, ways to damage them, and looking at what is found."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest
from crashing import Clock
from stores import COMBINATIONS, PATH, commit, open_on

from objstore.contracts import Entry, Filesystem, Finding, Format, History
from objstore.engine.opening import open_store
from objstore.engine.store import DirectoryStore
from objstore.formats import layouts
from objstore.ids import MAX_TID, Tid, oid_from
from objstore.machine.memory import MemoryFilesystem
from objstore.upkeep.check import KINDS, check
from objstore.upkeep.pack import pack

every_store = pytest.mark.parametrize(("history", "format"), COMBINATIONS)
CLASSIC = [layout for layout in Format if layout is not Format.SEGMENTED]
classic_stores = pytest.mark.parametrize(
    ("history", "format"), [(mode, layout) for mode, layout in COMBINATIONS if layout in CLASSIC]
)
classic_full = pytest.mark.parametrize("format", CLASSIC)
A, B, C = 1, 2, 3
TURNS = 60


class Refusing(MemoryFilesystem):
    """Does not let a path be read, or be listed."""

    refused: str | None = None

    def _refuse(self, path: str) -> None:
        if path == self.refused:
            raise PermissionError(errno.EACCES, "Permission denied", path)

    def read(self, path: str) -> bytes:
        self._refuse(path)
        return super().read(path)

    def read_at(self, path: str, offset: int, length: int) -> bytes:
        self._refuse(path)
        return super().read_at(path, offset, length)

    def map(self, path: str) -> memoryview:
        self._refuse(path)
        return super().map(path)

    def entries(self, path: str) -> list[Entry]:
        self._refuse(path)
        return super().entries(path)


def filled(filesystem: Filesystem, history: History, format: Format, **options: object) -> DirectoryStore:
    """A sound store: three objects below the root, in the home, each but the root changed once."""
    store = open_on(filesystem, history, format, Clock(), **options)
    commit(store, {0: "root", A: "a", B: "b", C: "c"}, {0: (A, B, C)})
    store.flush()
    commit(store, {A: "a, changed", B: "b, changed", C: "c, changed"})
    store.flush()
    return store


def settle(store: DirectoryStore) -> None:
    """Commit twice, because the objects of the two newest transactions are kept and are no findings."""
    for value in ("one", "two"):
        commit(store, {C: value})


def found(store: DirectoryStore) -> list[Finding]:
    findings = list(check(store))
    assert {finding.kind for finding in findings} <= KINDS.keys()
    return findings


def kinds(findings: list[Finding]) -> set[str]:
    return {finding.kind for finding in findings}


def only(store: DirectoryStore, kind: str) -> Finding:
    """The one finding of a store."""
    findings = found(store)
    assert [finding.kind for finding in findings] == [kind], findings
    return findings[0]


def of_kind(store: DirectoryStore, kind: str) -> Finding:
    """The one finding of a kind, among others that follow from it."""
    matching = [finding for finding in found(store) if finding.kind == kind]
    assert len(matching) == 1, matching
    return matching[0]


def files_below(filesystem: Filesystem, path: str) -> Iterator[str]:
    for entry in sorted(filesystem.entries(path), key=lambda entry: entry.name):
        if entry.is_directory:
            yield from files_below(filesystem, f"{path}/{entry.name}")
        else:
            yield f"{path}/{entry.name}"


def directories_below(filesystem: Filesystem, path: str) -> Iterator[str]:
    yield path
    for entry in filesystem.entries(path):
        if entry.is_directory:
            yield from directories_below(filesystem, f"{path}/{entry.name}")


def put(filesystem: Filesystem, path: str, content: bytes = b"") -> str:
    """Write a file, whatever was there."""
    if filesystem.exists(path):
        filesystem.unlink(path)
    with filesystem.create(path) as file:
        file.write(content)
    return path


def make(filesystem: Filesystem, path: str) -> str:
    if not filesystem.exists(path):
        filesystem.make_directory(path)
    return path


def flip(filesystem: Filesystem, path: str, at: int) -> None:
    content = bytearray(filesystem.read(path))
    content[at] ^= 0x40
    put(filesystem, path, bytes(content))


def object_path(store: DirectoryStore, oid: int, name: str) -> str:
    directory = layouts.object_directory(store.settings.format, oid_from(oid))
    return "/".join(part for part in (store.directory.home, directory, name) if part)


def current_path(store: DirectoryStore, oid: int) -> str:
    return object_path(store, oid, layouts.current_name(oid_from(oid)))


def revision_path(store: DirectoryStore, oid: int, tid: Tid | None = None) -> str:
    """The file of an object's revision, the current one if none is named, in a classic format."""
    at = oid_from(oid)
    if store.history_mode is History.MINIMAL:
        return object_path(store, oid, layouts.data_name(at))
    return object_path(store, oid, layouts.revision_name(at, tid or store.home.current(at)))


def record_path(store: DirectoryStore, oid: int) -> str:
    """The file that holds the current record of an object, in any format."""
    if store.settings.format is not Format.SEGMENTED:
        return revision_path(store, oid)
    data = store.home.load(oid_from(oid), MAX_TID).data
    paths = files_below(store.filesystem, store.directory.home)
    return next(path for path in paths if data in store.filesystem.read(path))


def looked_at(store: DirectoryStore, *, tolerant: bool = False) -> DirectoryStore:
    """The same store, opened for reading as the command line does, after its process has ended."""
    options = store._options._replace(read_only=True)
    return open_store(PATH, options, filesystem=store.filesystem, packer=pack, tolerant=tolerant)


def state(filesystem: Filesystem) -> dict[str, bytes]:
    return {path: filesystem.read(path) for path in files_below(filesystem, PATH)}

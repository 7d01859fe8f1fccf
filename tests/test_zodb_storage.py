"""ZODB's own tests of storages, as they are installed with it, over `objstore.zodb.DirectoryStorage`.

`LEFT_OUT` names those that do not apply, with the reason; those of blobs are in `test_zodb_blobs`. What takes long
runs by default over one kind of store at most, and over the others in `make test-long`.
"""

from __future__ import annotations

import pytest
from ZODB.tests import (
    BasicStorage,
    ConflictResolution,
    HistoryStorage,
    IteratorStorage,
    MTStorage,
    PackableStorage,
    PersistentStorage,
    ReadOnlyStorage,
    RecoveryStorage,
    RevisionStorage,
    StorageTestBase,
    Synchronization,
    TransactionalUndoStorage,
    testMVCCMappingStorage,
)
from ZODB.tests.hexstorage import HexStorage
from zodbwrappers import Plain

from objstore.zodb import DirectoryStorage

ANY = (
    BasicStorage.BasicStorage,
    ConflictResolution.ConflictResolvingStorage,
    IteratorStorage.IteratorStorage,
    MTStorage.MTStorage,
    PackableStorage.PackableStorageWithOptionalGC,
    PersistentStorage.PersistentStorage,
    ReadOnlyStorage.ReadOnlyStorage,
    Synchronization.SynchronizedStorage,
    testMVCCMappingStorage.MVCCTests,
)
"""What applies to every storage, the race tests among them (`BasicStorage` has these)."""
WITH_HISTORY = (
    ConflictResolution.ConflictResolvingTransUndoStorage,
    HistoryStorage.HistoryStorage,
    IteratorStorage.ExtendedIteratorStorage,
    PackableStorage.PackableUndoStorage,
    RevisionStorage.RevisionStorage,
    TransactionalUndoStorage.TransactionalUndoStorage,
)
LEFT_OUT = {
    "minimal": {
        "testSimpleIteration": "it iterates over revisions that were superseded, which Minimal does not keep",
        "testUndoZombie": "it undoes, which needs history",
        "testTransactionExtensionFromIterator": "Minimal keeps no details of flushed transactions, so tells none",
    },
    "full": {},
}
NOT_APPLICABLE = {
    "Corruption.FileStorageCorruptTests": "it damages the index of a FileStorage; ours is in test_check_files.py",
}
"""Whole modules of ZODB's tests of storages that are not run."""
SLOWEST = ("test_race_external_invalidate_vs_disconnect",)
SLOW = (
    *SLOWEST,
    "test2StorageThreads",
    "test2ZODBThreads",
    "test4ExtStorageThread",
    "test7ZODBThreads",
    "testPackAfterUndoManyTimes",
    "test7StorageThreads",
    "testLoadBeforeOld",
    "testPackLotsWhileWriting",
    "testPackNowWhileWriting",
    "testPackWhileWriting",
    "test_race_load_vs_external_invalidate",
    "test_race_loadopen_vs_local_invalidate",
)


class OverStore(StorageTestBase.StorageTestBase):
    """Opens the storage in the directory that ZODB's tests are given."""

    history: str
    format: str
    use_extension_bytes = True
    __test__ = False

    def setUp(self):
        super().setUp()
        self.open()

    def open(self, **options):
        self._storage = self.made("storage", **options)

    def made(self, path, **options):
        return DirectoryStorage(path, history=self.history, format=self.format, **options)

    def _new_storage_client(self):
        return self.made("storage")


class OverTwoStores(OverStore, RecoveryStorage.RecoveryStorage):
    """Copies one storage into another."""

    def setUp(self):
        super().setUp()
        self._dst = self.made("destination")

    def tearDown(self):
        self._dst.close()
        super().tearDown()


class OverTransformed(OverStore):
    """A wrapper that writes records in hexadecimal."""

    def made(self, path, **options):
        return HexStorage(super().made(path, **options))


class OverPlain(OverStore):
    """Nobody asks for instances."""

    def made(self, path, **options):
        return Plain(super().made(path, **options))


def kind_of(history, format, *bases, slowly):
    """The tests of some classes over a kind of store; `slowly`: those that take long as well."""
    members = {"history": history, "format": format, "__test__": True, "__module__": __name__}
    made = type(f"Test{bases[0].__name__}{history.title()}{format.title()}", bases, members)
    for name in LEFT_OUT[history]:
        setattr(made, name, None)
    for name in SLOW:
        if (not slowly or name in SLOWEST) and getattr(made, name, None) is not None:
            setattr(made, name, slow(getattr(made, name)))
    return made


def slow(test):
    """A test of ZODB's that runs in `make test-long` only."""

    def run(self):
        test(self)

    return pytest.mark.long(run)


TestFullSegmented = kind_of("full", "segmented", OverStore, *ANY, *WITH_HISTORY, slowly=True)
TestFullChunky = kind_of("full", "chunky", OverStore, *ANY, *WITH_HISTORY, slowly=False)
TestMinimalSegmented = kind_of("minimal", "segmented", OverStore, *ANY, slowly=False)
TestMinimalChunky = pytest.mark.long(kind_of("minimal", "chunky", OverStore, *ANY, slowly=True))
TestTransformed = pytest.mark.long(kind_of("full", "segmented", OverTransformed, *ANY, *WITH_HISTORY, slowly=True))
TestPlain = kind_of("full", "segmented", OverPlain, BasicStorage.BasicStorage, MTStorage.MTStorage, slowly=False)
TestRecoverySegmented = kind_of("full", "segmented", OverTwoStores, slowly=True)
TestRecoveryChunky = kind_of("full", "chunky", OverTwoStores, slowly=False)


def test_what_is_left_out(record_property):
    for names in LEFT_OUT.values():
        assert all(any(hasattr(base, name) for base in ANY) for name in names)
    record_property("ZODB's tests left out", sum(map(len, LEFT_OUT.values())))
    record_property("modules of ZODB's tests left out", len(NOT_APPLICABLE))

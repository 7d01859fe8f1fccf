"""ZEO's own tests of a server and its client, as they are installed with it, over a store.

These are, once more, ZODB's tests of storages, each with a server in a process of its own.
"""

from __future__ import annotations

import os
import tempfile

import pytest
from ZEO.tests import testZEO


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
class TestOverStore(testZEO.FullGenericTests):
    """Each test has a store of its own. ZEO's clients leave sockets to the garbage collector."""

    def getConfig(self):
        path = tempfile.mkdtemp(dir=os.getcwd())
        return f"%import objstore\n<directorystorage 1>\n  path {path}/store\n</directorystorage>\n"


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
class TestBlobsOverStore(testZEO.GenericTestBase):
    """Its tests of blobs in a cache of the client's own, but for one that looks into the server's directory."""

    blob_cache_dir = "blob_cache"
    getConfig = TestOverStore.getConfig  # noqa: N815
    test_store = checkStoreBlob = testZEO.CommonBlobTests.checkStoreBlob  # noqa: N815
    test_another_partition = testZEO.CommonBlobTests.checkStoreBlob_wrong_partition
    test_load = testZEO.CommonBlobTests.checkLoadBlob
    test_temporary_directory = testZEO.CommonBlobTests.checkTemporaryDirectory
    test_given_up = testZEO.CommonBlobTests.checkTransactionBufferCleanup

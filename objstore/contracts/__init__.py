"""The seams of objstore: what the floors above may ask of those below, and nothing else."""

from __future__ import annotations

from objstore.contracts.blobs import BlobFiles, BlobSink, BlobStore, TemporaryFiles
from objstore.contracts.home import (
    Finding,
    Format,
    History,
    Home,
    Removal,
)
from objstore.contracts.machine import (
    Entry,
    FileLock,
    Filesystem,
    LockedError,
    Mutex,
    WritableFile,
)
from objstore.contracts.store import (
    Conflict,
    Packer,
    PackOptions,
    PackReport,
    PackTarget,
    PendingTransaction,
    Progress,
    Resolver,
    Store,
    StoreOptions,
    View,
)

__all__ = [
    "BlobFiles",
    "BlobSink",
    "BlobStore",
    "Conflict",
    "Entry",
    "FileLock",
    "Filesystem",
    "Finding",
    "Format",
    "History",
    "Home",
    "LockedError",
    "Mutex",
    "PackOptions",
    "PackReport",
    "PackTarget",
    "Packer",
    "PendingTransaction",
    "Progress",
    "Removal",
    "Resolver",
    "Store",
    "StoreOptions",
    "TemporaryFiles",
    "View",
    "WritableFile",
]

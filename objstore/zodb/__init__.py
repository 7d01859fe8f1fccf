"""Our store under ZODB: `DirectoryStorage`, for `ZODB.DB`, ZEO and all else that takes a storage. Needs ZODB."""

from __future__ import annotations

from objstore.zodb.storage import DirectoryStorage

__all__ = ["DirectoryStorage"]

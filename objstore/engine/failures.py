"""What an `OSError` means to somebody who commits."""

from __future__ import annotations

import errno

from objstore.errors import StorageError, StorageFullError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def storage_error(path: str, error: OSError) -> StorageError:
    """Our error for one of the system's that stopped a write before anything was changed."""
    reason = error.strerror or str(error)
    if error.errno in _NO_ROOM:
        return StorageFullError(path, reason)
    return StorageError(f"{path}: {reason}; nothing was changed")

"""What an `OSError` means to somebody who commits."""

from __future__ import annotations

import errno

from objstore.errors import StorageError, StorageFullError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def storage_error(path: str, error: OSError, outcome: str = "nothing was changed") -> StorageError:
    """Our error for one of the system's that stopped a write. `outcome` says what that means to the caller."""
    reason = error.strerror or str(error)
    if error.errno in _NO_ROOM:
        return StorageFullError(path, reason, outcome)
    return StorageError(f"{path}: {reason}; {outcome}")

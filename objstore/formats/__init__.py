"""Floor 1, bytes: every name and every format that stands on a disk, as pure functions of bytes."""

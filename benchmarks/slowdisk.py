"""A slower disk than the one there is: syncs that take as long as those of the disk that is meant.

Where a sync takes 0.1 ms, as on many virtual machines, the processor decides about commits; where it takes 1 to
10 ms, as on disks that people own, the syncs do. A disk empties its cache for one at a time, and all who wait when
it begins are served at once: so does the kernel (`block/blk-flush.c` of Linux), and so does this.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from threading import Condition


class SlowDisk:
    """What stands below the syncs of a process."""

    def __init__(self, seconds: float) -> None:
        """`seconds` is what it takes to empty the cache once."""
        self._seconds = seconds
        self._moved = Condition()
        self._begun = self._done = 0  # how often that was begun, and how often it was done

    def flush(self) -> None:
        """Return once the cache was emptied, begun after this was called."""
        with self._moved:
            wanted = self._begun + 1
            while self._done < wanted:
                if self._begun > self._done:
                    self._moved.wait()
                    continue
                self._begun += 1
                self._moved.release()
                time.sleep(self._seconds)
                self._moved.acquire()
                self._done = self._begun
                self._moved.notify_all()


def put_below(seconds: float) -> None:
    """Have all syncs that this process makes by `os` take so much longer. Comes before any peer is imported."""
    disk = SlowDisk(seconds)

    def slower(sync: Callable[[int], None]) -> Callable[[int], None]:
        def sync_and_flush(descriptor: int) -> None:
            sync(descriptor)
            disk.flush()

        return sync_and_flush

    os.fsync, os.fdatasync = slower(os.fsync), slower(os.fdatasync)  # type: ignore[assignment]  # as they are called

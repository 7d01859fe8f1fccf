"""Stores whose flusher works in its thread, over a filesystem that a test can hold up or make fail."""

from __future__ import annotations

import errno
import faulthandler
import os
import sys
import threading
import time
from itertools import product

from stores import open_on

from objstore.contracts import Format, History
from objstore.machine.memory import MemoryFilesystem

NEVER = {"flush_transactions": 10**9, "flush_bytes": 10**12, "flush_age": 3600.0}
"""Options of a flusher that does nothing of its own accord."""
PATIENCE = 60.0
COMBINATIONS = list(product(History, (Format.SEGMENTED, Format.CHUNKY)))


class Troubled(MemoryFilesystem):
    """A filesystem whose creations below the home wait at a gate, and fail, as a test asks for."""

    def __init__(self):
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.error = None
        self.where = "/A/"
        self.failures = 0

    def create(self, path):
        self._pass(path)
        return super().create(path)

    def rename(self, old, new):
        if "/A/" not in new:
            self._pass(new)
        super().rename(old, new)

    def _pass(self, path):
        if self.where not in path:
            return
        self.entered.set()
        assert self.gate.wait(PATIENCE)
        if self.error is not None:
            self.failures += 1
            raise self.error

    def hold(self):
        """Let the flusher wait from here on, until `gate.set()`."""
        self.entered.clear()
        self.gate.clear()

    def fail(self, number=errno.EIO):
        self.error = OSError(number, os.strerror(number))

    def heal(self):
        self.error = None


def until(condition):
    """Return once the condition holds."""
    deadline = time.monotonic() + PATIENCE
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        pause.wait(0.001)


def joined(*threads):
    """Wait for threads to end. One that does not is told with all that the others do."""
    for thread in threads:
        thread.join(PATIENCE)
        if thread.is_alive():
            faulthandler.dump_traceback(file=sys.__stderr__)
            raise AssertionError(f"{thread.name} does not end")


class Opener:
    """Opens stores with the flusher in its thread, and closes at the end those that are still open."""

    def __init__(self, filesystem, history, layout):
        self._filesystem = filesystem
        self._kind = history, layout
        self._stores = []

    def __call__(self, **options):
        store = open_on(self._filesystem, *self._kind, **{"background": True, **NEVER, **options})
        self._stores.append(store)
        return store

    def abandon(self, store):
        """Let the store's process end without closing it."""
        store._flusher.stop()
        store._membership.close()
        self._stores.remove(store)

    def close(self):
        for store in self._stores:
            store.close()


def is_flushed(store):
    return store.flushed == store.last_tid() and store.statistics()["journal_transactions"] == 0


def flushers():
    return [thread for thread in threading.enumerate() if thread.name == "objstore-flusher"]

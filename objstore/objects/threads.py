"""Keeping a connection in the thread that opened it, where an application asks for that (`check_threads`)."""

from __future__ import annotations

from threading import Thread, current_thread

from objstore.errors import ThreadMismatchError
from objstore.objects.options import DatabaseOptions


def thread_to_keep(options: DatabaseOptions) -> Thread | None:
    """The thread that opens a connection, which then is the only one to use it; None where any may."""
    return current_thread() if options.check_threads else None


def require_thread(owner: Thread | None) -> None:
    """Raises ThreadMismatchError in any thread but this one; None is any."""
    if owner is not None and owner is not current_thread():
        raise ThreadMismatchError(owner.name, current_thread().name)

"""Databases for tests of the object layer: over the model, in memory, and on the disk in every format."""

from __future__ import annotations

from contextlib import suppress

import pytest
import transaction
from model_store import ModelStore
from servers import postgresql, why_no_postgresql, zeos

import objstore
from objstore.contracts import Format, History
from objstore.objects import DB
from objstore.objects.options import split_options

FULL = ["model-full", "memory-full", *(f"{each}-full" for each in Format)]
MINIMAL = ["model-minimal", "memory-minimal", *(f"{each}-minimal" for each in Format)]
ALL = FULL + MINIMAL
FEW = ["model-full", "memory-full", "memory-minimal"]
"""For what depends on the object layer alone."""
ADOPTED_FULL = ["filestorage-full", "zeo-full", "postgresql-full"]
ADOPTED = [*ADOPTED_FULL, "postgresql-minimal"]
"""Over ZODB's storages; ZEO and PostgreSQL are servers."""


def make(kind, directory, **options):
    """A database of a kind. Those on the disk are made in `directory`, or found there."""
    where, history = kind.split("-")
    if where == "model":
        return DB(ModelStore(History(history)), split_options(options)[1])
    if where == "memory":
        return objstore.memory(history=history, **options)
    if kind in ADOPTED:
        return objstore.open(adopted_url(kind, directory), **options)
    # Thousands of files synced at the end of each test would take most of the time of a run.
    options.setdefault("flush_on_close", False)
    return objstore.open(directory / f"{kind}.store", history=history, format=where, **options)


def adopted_url(kind, directory):
    """The URL of a storage of ZODB's: of a file in `directory`, or of a fresh one at a server of this run."""
    where, history = kind.split("-")
    if where == "filestorage":
        return f"file://{directory}/Data.fs"
    if where == "zeo":
        return zeos().fresh()
    missing = why_no_postgresql()
    if missing:
        pytest.skip(missing)
    return postgresql().fresh(keep_history=history == "full")


class Databases:
    """Makes databases, and closes them when the test has ended."""

    def __init__(self, directory):
        self._directory = directory
        self._made = []

    def __call__(self, kind, **options):
        db = make(kind, self._directory, **options)
        self._made.append(db)
        return db

    def close(self):
        for db in self._made:
            with suppress(objstore.errors.StorageError):
                db.close()


def opened(db, **how):
    """A connection with a transaction manager of its own."""
    return db.open(transaction.TransactionManager(), **how)


def commit(connection):
    connection.transaction_manager.commit()


def abort(connection):
    connection.transaction_manager.abort()

"""The public surface: small, named, and quickly imported."""

from __future__ import annotations

import ast
import subprocess
import sys

import objstore
import objstore.errors
import objstore.objects

NAMES = [
    "DB",
    "Blob",
    "ConflictError",
    "Connection",
    "DataError",
    "ObjstoreError",
    "OpenError",
    "POSKeyError",
    "ReadConflictError",
    "ReadOnlyError",
    "StorageError",
    "StoreMissingError",
    "TransientStoreError",
    "UndoError",
    "UsageError",
    "copy",
    "errors",
    "memory",
    "open",
]


def test_the_names():
    assert sorted(objstore.__all__) == sorted(NAMES)
    assert all(hasattr(objstore, name) for name in NAMES)


def test_errors_are_those_of_the_tree():
    for name in NAMES:
        member = getattr(objstore, name)
        if name.endswith("Error"):
            assert member is getattr(objstore.errors, name)
            assert issubclass(member, objstore.ObjstoreError)


def test_classes_are_those_of_the_object_layer():
    assert objstore.DB is objstore.objects.DB
    assert objstore.Connection is objstore.objects.Connection


def test_everything_public_is_documented():
    for member in (objstore.DB, objstore.Connection, objstore.open, objstore.memory, objstore.copy):
        assert member.__doc__
    for kind in (objstore.DB, objstore.Connection):
        for name, member in vars(kind).items():
            if not name.startswith("_") and callable(member):
                assert member.__doc__, f"{kind.__name__}.{name}"


def test_importing_is_light():
    """None of what only commands, servers or tests need, nor what few programs need and much hangs on."""
    modules = set(ast.literal_eval(_printed("import sys, objstore; print(sorted(sys.modules))")))
    assert "objstore.engine.store" in modules
    heavy = "click asyncio http BTrees ZODB unittest pytest objstore.cli"
    slow = "dataclasses inspect json pickletools platform queue random shutil tempfile uuid"
    rare = "objstore.engine.full objstore.engine.sweeping objstore.upkeep.copy objstore.upkeep.pack"
    assert modules.isdisjoint([*heavy.split(), *slow.split(), *rare.split()])


def _printed(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()

"""The storage from a configuration: a section of ZConfig, which `objstore/component.xml` describes, and a URI.

Both say by words what `DirectoryStorage` takes as arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from ZODB.config import BaseConfig

from objstore.errors import UsageError
from objstore.objects.options import FALSE, TRUE
from objstore.zodb.storage import DirectoryStorage

OPTIONS = (
    "history",
    "format",
    "create",
    "read_only",
    "pack_gc",
    "exclusive",
    "force",
    "background",
    "flush_transactions",
    "flush_bytes",
    "flush_age",
    "journal_limit",
    "pin_limit",
    "flush_on_close",
)


class DirectoryStorageSection(BaseConfig):
    """The section `directorystorage`."""

    def open(self, database_name: str = "unnamed", databases: Any = None) -> DirectoryStorage:  # noqa: ARG002
        """The storage, open. Raises UsageError, OpenError and its kin, CorruptionError, StorageError."""
        given = {name: getattr(self.config, name) for name in OPTIONS}
        return DirectoryStorage(
            self.config.path, **{name: value for name, value in given.items() if value is not None}
        )


def resolve(uri: str) -> tuple[Callable[[], DirectoryStorage], dict[str, str]]:
    """What `zodburi` asks for `objstore:///path?option=value`: what makes the storage, and a database's options.

    These are `database_name`, and those that begin with `connection_`, as zodburi has them.
    """
    parts = urlsplit(uri)
    for_database: dict[str, str] = {}
    for_storage: list[tuple[str, str]] = []
    pack_gc = True
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name == "database_name" or name.startswith("connection_"):
            for_database[name] = value
        elif name == "pack_gc":
            pack_gc = _is_true(name, value)
        else:
            for_storage.append((name, value))
    location = urlunsplit(parts._replace(query=urlencode(for_storage)))
    return lambda: DirectoryStorage(location, pack_gc=pack_gc), for_database


def _is_true(name: str, word: str) -> bool:
    if word.lower() not in TRUE + FALSE:
        raise UsageError(f"{name} is true or false, not {word!r}")
    return word.lower() in TRUE

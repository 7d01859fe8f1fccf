"""From a URL to a store: which storage of ZODB's it names, and which options go where.

What stands in the URL is for the storage, as zodburi and the storage's own package document it. What stands beside
it is ours: the options of the database, `read_only` and `create`; and those of objstore's own stores are refused,
because no storage of others has a journal to flush.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import zodburi
from ZODB.FileStorage.FileStorage import CorruptedFileStorageError

from objstore.compat.adopted import datafile
from objstore.compat.adopted.answers import Answers
from objstore.compat.adopted.failures import foreign_errors, missing_drivers, translated
from objstore.compat.adopted.store import AdoptedStore
from objstore.contracts import StoreOptions
from objstore.errors import CorruptionError, OpenError, StoreLockedError, StoreMissingError, UsageError
from objstore.objects.options import DatabaseOptions, split_options

PREFIX = "zodb+"
_SYNONYMS = {"postgresql": "postgres"}
_OURS = ("cache_size", "cache_size_bytes", "pool_size")
"""What the options of a ZODB database are called that a URL names with `connection_` before it."""
_OF_FILES = (
    "historical_cache_size",
    "historical_cache_size_bytes",
    "historical_pool_size",
    "historical_timeout",
    "large_record_size",
)
"""What a configuration file always says of a ZODB database, whether or not it stands there. It is passed over."""
_TAKEN = {"read_only", "create"}
"""The options of stores that mean something for a storage of others."""


def adopted_options(uri: str, given: Mapping[str, Any]) -> tuple[StoreOptions, DatabaseOptions]:
    """The options given beside a URL, checked; with those for the database that stand in the URL.

    Raises UsageError for options that only stores of objstore's own have, and for unknown ones in the URL.
    """
    store, database = split_options(given)
    own = set(StoreOptions._fields)
    unfit = sorted(own.intersection(given) - _TAKEN)
    if unfit:
        raise UsageError(f"{', '.join(unfit)}: an option of objstore's own stores, which {uri} is not")
    in_url = _resolved(uri, without_password(uri))[1]
    known = {*_OURS, "database_name", *(_OF_FILES if uri.removeprefix(PREFIX).startswith("zconfig:") else ())}
    unfit = sorted(in_url.keys() - known)
    if unfit:
        raise UsageError(f"{without_password(uri)}: objstore has no {', '.join(unfit)}")
    named = {name: value for name, value in in_url.items() if name in _OURS and name not in given}
    return store, database._replace(**named)


def open_adopted(uri: str, options: StoreOptions, *, written: str | None = None) -> AdoptedStore:
    """The store that a URL names. `written` is the URL that the user wrote, where something was added to it.

    Raises OpenError and its kin, UsageError, CorruptionError, StoreUnavailableError.
    """
    path = file_path(uri)
    if path is not None and not options.create and not os.path.exists(path):
        raise StoreMissingError(path)
    storage = open_storage(uri, read_only=options.read_only, written=written)
    try:
        return AdoptedStore(storage, path or without_password(written or uri), read_only=options.read_only)
    except BaseException:
        storage.close()
        raise


def open_storage(uri: str, *, read_only: bool = False, written: str | None = None) -> Any:
    """The storage that a URL names. `read_only` adds that to the URL, for storages that know it.

    Errors show the URL as it was `written`.

    Raises OpenError and its kin, UsageError, CorruptionError.
    """
    name = without_password(written or uri)
    if read_only:
        uri = f"{uri}{'&' if '?' in uri else '?'}read_only=1"
    factory, _ = _resolved(uri, name)
    path = file_path(uri)
    if path is not None:
        datafile.require_data_file(path)
    answers = Answers()
    try:
        with answers:
            return datafile.with_its_last_transaction(factory(), factory)
    except (*foreign_errors(), *datafile.NONSENSE) as error:
        ours = _damage(path, error) or translated(error, name)
        if isinstance(ours, StoreLockedError | UsageError | CorruptionError):
            raise ours from error
        if not isinstance(error, foreign_errors()):
            raise
        reason = answers.reason(uri) or str(error).strip() or type(error).__name__
        raise OpenError(name, reason) from error
    except Exception as error:
        if not isinstance(error, (ImportError, *missing_drivers())):
            raise
        raise OpenError(name, f"a package that it needs is missing: {error}") from error


def _damage(path: str | None, error: Exception) -> CorruptionError | None:
    """Where the file of a FileStorage is damaged that could not be opened; None for another reason."""
    if path is None or not isinstance(error, (CorruptedFileStorageError, *datafile.NONSENSE)):
        return None
    unread = datafile.first_unread_of(path)
    if unread is None:
        return CorruptionError(path, str(error)) if isinstance(error, CorruptedFileStorageError) else None
    return unread.error()


def _resolved(uri: str, name: str) -> tuple[Any, dict[str, Any]]:
    """The factory of a URL's storage, and the options of the database. Raises UsageError, which shows `name`."""
    scheme, colon, rest = uri.removeprefix(PREFIX).partition(":")
    try:
        factory, named = zodburi.resolve_uri(f"{_SYNONYMS.get(scheme, scheme)}{colon}{rest}")
    except zodburi.NoResolverForScheme as error:
        raise UsageError(f"no installed package knows the scheme of {name}") from error
    except KeyError as error:
        raise UsageError(f"{name}: {error.args[0]}") from error
    except (ValueError, TypeError) as error:
        raise UsageError(f"{name}: {error}") from error
    return factory, named


def file_path(uri: str) -> str | None:
    """The path in the URL of a FileStorage; None for other storages."""
    rest = uri.removeprefix(PREFIX)
    return os.path.normpath(rest[7:].partition("?")[0]) if rest.startswith("file://") else None


def without_password(uri: str) -> str:
    """A URL as messages show it."""
    head, at, tail = uri.rpartition("@")
    if not at or "://" not in head:
        return uri
    scheme, _, user = head.partition("://")
    return f"{scheme}://{user.partition(':')[0]}@{tail}"

"""How a database is opened: the options of the object layer, and both kinds of options from a URL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, cast

from objstore.contracts import Format, History, StoreOptions
from objstore.errors import UsageError
from objstore.later import Later
from objstore.objects.classes import AllowedClasses

if TYPE_CHECKING:
    from urllib import parse
else:
    parse = Later("urllib.parse")

SCHEME = "objstore"


class DatabaseOptions(NamedTuple):
    """The options of a `DB`.

    Each connection keeps up to about `cache_size` objects in memory between transactions, whose records have
    up to about `cache_size_bytes` bytes (0: any). `pool_size` is how many connections are kept for reuse, and
    past which open ones are warned about. `savepoint_memory` is how many bytes the savepoints of a
    transaction keep in memory before they go to a temporary file. `allowed_classes` is told in
    `objstore.objects.classes`. `check_threads` raises ThreadMismatchError where a connection is used by another
    thread than the one that opened it.
    """

    cache_size: int = 10_000
    cache_size_bytes: int = 0
    pool_size: int = 7
    savepoint_memory: int = 8 * 2**20
    allowed_classes: AllowedClasses | None = None
    check_threads: bool = False


class Options(TypedDict, total=False):
    """Every option by its name: the fields of `contracts.StoreOptions`, and those of `DatabaseOptions`."""

    history: str | None
    format: str | None
    create: bool
    read_only: bool
    background: bool
    flush_transactions: int
    flush_bytes: int
    flush_age: float
    journal_limit: int
    pin_limit: int
    flush_on_close: bool
    exclusive: bool
    force: bool
    cache_size: int
    cache_size_bytes: int
    pool_size: int
    savepoint_memory: int
    allowed_classes: AllowedClasses | None
    check_threads: bool


class Location(NamedTuple):
    """Where a store is, and how the caller wants it opened. `path` is as the caller wrote it."""

    path: str
    store: StoreOptions
    database: DatabaseOptions


_STORE, _DATABASE = set(StoreOptions._fields), set(DatabaseOptions._fields)
TRUE, FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
_DEFAULTS = StoreOptions._field_defaults | DatabaseOptions._field_defaults
_WORDS = {"history": History, "format": Format}


def is_foreign(path: str) -> bool:
    """Whether this is a URL of a storage that is not objstore's own."""
    return "://" in path and parse.urlsplit(path).scheme not in ("", SCHEME, f"zodb+{SCHEME}")


def locate(path: str, options: Mapping[str, Any]) -> Location:
    """Understand a path, or a URL `objstore:///path?option=value`, and options given beside it.

    An option may stand in the URL or beside it, not in both. Raises UsageError that names what is known.
    """
    given = dict(options)
    if not path:
        raise UsageError("the path of the store is empty")
    path = path.removeprefix("zodb+") if path.startswith(f"zodb+{SCHEME}:") else path
    if path.startswith(f"{SCHEME}:"):
        path, in_url = _from_url(path)
        twice = sorted(in_url.keys() & given.keys())
        if twice:
            raise UsageError(f"given twice, in the URL and beside it: {', '.join(twice)}")
        given.update(in_url)
    return Location(path, *split_options(given))


def split_options(given: Mapping[str, Any]) -> tuple[StoreOptions, DatabaseOptions]:
    """Options of both kinds, as two values. Raises UsageError for unknown names and unfit values."""
    unknown = sorted(given.keys() - _STORE - _DATABASE)
    if unknown:
        known = ", ".join(sorted(_STORE | _DATABASE))
        raise UsageError(f"unknown option: {', '.join(unknown)}; there are {known}")
    checked = {name: _checked(name, value) for name, value in given.items()}
    return (
        StoreOptions(**{name: value for name, value in checked.items() if name in _STORE}),
        DatabaseOptions(**{name: value for name, value in checked.items() if name in _DATABASE}),
    )


def _checked(name: str, value: Any) -> Any:
    if name in _WORDS:
        return None if value is None else _word(name, value)
    if name == "allowed_classes":
        return _patterns(value)
    default = _DEFAULTS[name]
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise UsageError(f"{name} is true or false, not {value!r}")
    elif isinstance(default, int | float):
        fits = isinstance(value, int) or (isinstance(default, float) and isinstance(value, float))
        if not fits or isinstance(value, bool) or not value >= 0:
            kind = "a number" if isinstance(default, float) else "a whole number"
            raise UsageError(f"{name} is {kind}, 0 or more, not {value!r}")
    return value


def _word(name: str, value: Any) -> Any:
    try:
        return _WORDS[name](value)
    except ValueError:
        known = ", ".join(_WORDS[name])
        raise UsageError(f"{name} is one of {known}, not {value!r}") from None


def _patterns(value: Any) -> AllowedClasses | None:
    if value is None or callable(value):
        return cast("AllowedClasses | None", value)
    given = [value] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
    patterns = [each for each in given if isinstance(each, str)]
    if len(patterns) != len(given):
        raise UsageError(f"allowed_classes is names, prefixes or a callable, not {value!r}")
    return patterns


def _from_url(url: str) -> tuple[str, dict[str, Any]]:
    parts = parse.urlsplit(url)
    if parts.netloc or not parts.path.startswith("/") or parts.fragment:
        raise UsageError(f"a URL of a store is {SCHEME}:///absolute/path?option=value, not {url!r}")
    options: dict[str, Any] = {}
    for name, text in parse.parse_qsl(parts.query, keep_blank_values=True):
        if name in options:
            raise UsageError(f"given twice in the URL: {name}")
        options[name] = _from_text(name, text)
    return parse.unquote(parts.path), options


def _from_text(name: str, text: str) -> Any:
    """The value of an option that is written in a URL. Unknown names are left to `split_options`."""
    default = _DEFAULTS.get(name)
    if isinstance(default, bool):
        word = text.lower()
        return True if word in TRUE else False if word in FALSE else text
    if isinstance(default, int | float):
        try:
            return type(default)(text)
        except ValueError:
            return text
    return [each for each in text.split(",") if each] if name == "allowed_classes" else text

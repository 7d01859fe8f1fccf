"""Which classes a load may import, and how they are found.

`allowed_classes` limits what loading an object may import: names ("app.models.Person"), prefixes that end
in "." or ".*" ("app.models."), or a callable that is given module and name. What it does not permit is an
error that names class and oid, raised before anything is imported. A prefix permits what is defined below
it, not what a module below it happens to have imported. A few harmless classes are always permitted
(`ALWAYS`, and all of BTrees).

A name that is permitted but cannot be imported is given a stand-in (see `broken`).
"""

from __future__ import annotations

import copyreg
import enum
import importlib
import io
import logging
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any

from objstore.errors import ClassNotAllowedError
from objstore.ids import Oid
from objstore.later import Later
from objstore.objects.blobs import Blob
from objstore.objects.broken import is_stand_in, name_of, reconstruct, stand_in

if TYPE_CHECKING:
    import pickletools
else:
    pickletools = Later("pickletools")

AllowedClasses = Iterable[str] | Callable[[str, str], bool]
"""Names, prefixes that end in "." or ".*", or a callable that is given a module and a name in it."""

ALWAYS = frozenset(
    """
    _codecs.encode
    builtins.Ellipsis builtins.NotImplemented builtins.bool builtins.bytearray builtins.bytes builtins.complex
    builtins.dict builtins.float builtins.frozenset builtins.int builtins.list builtins.object builtins.range
    builtins.set builtins.slice builtins.str builtins.tuple
    collections.Counter collections.OrderedDict collections.defaultdict collections.deque
    copyreg.__newobj__ copyreg.__newobj_ex__ copyreg._reconstructor
    datetime.date datetime.datetime datetime.time datetime.timedelta datetime.timezone
    objstore.collections.collection.Collection objstore.collections.tally.Tally
    objstore.collections.trees.IdTree objstore.collections.trees.KeyTree objstore.collections.trees.KeySet
    objstore.collections.members.Built objstore.collections.indexes.Index objstore.collections.indexes.Computed
    objstore.collections.conditions.Term objstore.collections.conditions.Matches
    objstore.collections.conditions.And objstore.collections.conditions.Or objstore.collections.conditions.Not
    objstore.collections.conditions.Equal objstore.collections.conditions.AnyOf
    objstore.collections.conditions.Range objstore.collections.conditions.Prefix
    objstore.collections.conditions.Has
    decimal.Decimal fractions.Fraction uuid.SafeUUID uuid.UUID zoneinfo.ZoneInfo zoneinfo.ZoneInfo._unpickle
    persistent.Persistent persistent.dict.PersistentDict persistent.list.PersistentList
    persistent.mapping.PersistentMapping persistent.wref.PersistentWeakKeyDictionary persistent.wref.WeakRef
    """.split()  # noqa: SIM905  # forty lines would not say it better
)
"""What a load may always import, whatever `allowed_classes` says."""

_ALWAYS_BELOW = ("BTrees.",)
_BLOBS = {("ZODB.blob", "Blob"), (Blob.__module__, "Blob")}
_SPECIAL = {"builtins", "__builtin__", "copyreg", "copy_reg", "ZODB.blob"}
"""Modules of which not everything is handed out as it is."""
_registered_codes: Mapping[int, object] = vars(copyreg)["_inverted_registry"]
_RECONSTRUCTOR = {("copyreg", "_reconstructor"), ("copy_reg", "_reconstructor")}

logger = logging.getLogger(__name__)


class _MissingError(Exception):
    """A name cannot be imported."""


class ClassFinder:
    """Finds what the records of a database name. May be used by any thread."""

    def __init__(self, allowed: AllowedClasses | None = None) -> None:
        self.limited = allowed is not None
        """Whether anything is refused."""
        self._names = ALWAYS
        self._below: tuple[str, ...] = _ALWAYS_BELOW
        self._ask: Callable[[str, str], bool] | None = None
        if callable(allowed):
            self._ask = allowed
        elif allowed is not None:
            patterns = [allowed] if isinstance(allowed, str) else list(allowed)
            self._names = ALWAYS | {each for each in patterns if not each.endswith((".", ".*"))}
            self._below += tuple(each.removesuffix("*") for each in patterns if each.endswith((".", ".*")))

    def find(self, oid: Oid | None, module: str, name: str) -> Any:
        """What a record of object `oid` means by a name.

        Raises ClassNotAllowedError, and whatever importing the module raises but ImportError.
        """
        if not self.limited and module not in _SPECIAL:  # the common case, short: it is asked for every load
            found = getattr(sys.modules.get(module), name, None)
            if found is not None:
                return found
        found = self._find(oid, module, name)
        if found is getattr:  # how protocol 3 writes a class within a class, and methods
            return partial(self._attribute, oid)
        return reconstruct if (module, name) in _RECONSTRUCTOR else found

    def require_no_codes(self, oid: Oid | None, data: bytes) -> None:
        """Refuse a record that names a class by an extension code (`copyreg.add_extension`).

        The unpickler may have such a class at hand without asking for it. Codes that nobody registered it
        refuses by itself. Raises ClassNotAllowedError.
        """
        if self.limited and _registered_codes:
            stream = io.BytesIO(data)
            with suppress(ValueError):  # what is no pickle is told of where it is loaded
                while stream.tell() < len(data):
                    for opcode, argument, _ in pickletools.genops(stream):
                        if opcode.name.startswith("EXT"):
                            raise ClassNotAllowedError(f"the class with extension code {argument}", oid)

    def _find(self, oid: Oid | None, module: str, name: str) -> Any:
        if (module, name) in _BLOBS:
            return Blob
        refused: list[str] = []
        for candidate in _spellings(module, name):
            try:
                return self._look_up(oid, *candidate)
            except _MissingError:
                continue
            except ClassNotAllowedError as error:
                refused.append(error.class_name)
        if refused and len(refused) == len(_spellings(module, name)):
            raise ClassNotAllowedError(refused[-1], oid)
        return stand_in(module, name)

    def _look_up(self, oid: Oid | None, module: str, name: str) -> Any:
        dotted = f"{module}.{name}"
        if dotted == "builtins.getattr":
            return getattr  # never handed out as it is
        trusted = not self.limited or self._permits_name(module, name)
        if not trusted and not dotted.startswith(self._below):
            raise ClassNotAllowedError(dotted, oid)
        outermost, *inner = name.split(".")
        value = _attribute(_imported(module, name), outermost)
        for part in inner:  # protocol 4 has dotted names: they lead through classes, not through modules
            if self.limited and not isinstance(value, type):
                raise ClassNotAllowedError(dotted, oid)
            value = _attribute(value, part)
        if not trusted:
            self._require_home(oid, dotted, value)
        return value

    def _permits_name(self, module: str, name: str) -> bool:
        return f"{module}.{name}" in self._names or (self._ask is not None and bool(self._ask(module, name)))

    def _require_home(self, oid: Oid | None, dotted: str, value: Any) -> None:
        """What a prefix permits is a class or function that is defined where the prefix permits it."""
        if isinstance(value, type | FunctionType):
            home = f"{value.__module__}.{value.__qualname__}"
            if home.startswith(self._below) or home in self._names:
                return
        raise ClassNotAllowedError(dotted, oid)

    def _attribute(self, oid: Oid | None, parent: Any, name: str) -> Any:
        """`getattr` as pickles use it: where classes are limited, it reaches only classes and enum members."""
        if isinstance(name, bytes):
            name = name.decode()
        if is_stand_in(parent):
            return stand_in(parent.__module__, f"{parent.__qualname__}.{name}")
        if self.limited:
            self._require_harmless(oid, parent, name)
        if isinstance(parent, type) and not hasattr(parent, name):
            return stand_in(parent.__module__, f"{parent.__qualname__}.{name}")
        return getattr(parent, name)

    def _require_harmless(self, oid: Oid | None, parent: Any, name: str) -> None:
        if isinstance(parent, enum.EnumMeta) and name in parent.__members__:
            return
        if not isinstance(parent, type):
            raise ClassNotAllowedError(f"an attribute {name!r} of {type(parent).__name__}", oid)
        dotted = f"{name_of(parent)}.{name}"
        if dotted in ALWAYS:
            return
        own = vars(parent).get(name)
        if not isinstance(own, type) and (own is not None or hasattr(parent, name)):
            raise ClassNotAllowedError(dotted, oid)
        qualified = f"{parent.__qualname__}.{name}"
        if not self._permits_name(parent.__module__, qualified) and not dotted.startswith(self._below):
            raise ClassNotAllowedError(dotted, oid)


def _spellings(module: str, name: str) -> list[tuple[str, str]]:
    """A name as it stands, and as Python 3 calls what Python 2 called so."""
    given = (module, name)
    mapped = NAME_MAPPING.get(given, (IMPORT_MAPPING.get(module, module), name))
    return [given] if mapped == given else [given, mapped]


def _imported(module: str, name: str) -> Any:
    """The module that a name is looked for in. Raises `_MissingError`."""
    try:
        return sys.modules[module] if module in sys.modules else importlib.import_module(module)
    except ImportError as error:
        logger.warning("%s.%s cannot be imported: %s", module, name, error)
        raise _MissingError from error


def _attribute(value: Any, name: str) -> Any:
    try:
        return getattr(value, name)
    except AttributeError as error:
        raise _MissingError from error

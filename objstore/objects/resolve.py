"""Conflict resolution: merging what two transactions made of one object, by its class's own rule.

A class says how by `_p_resolveConflict(old, committed, new)`, which is given three states and returns the
merged one. No object is loaded for that: where a state refers to persistent objects it holds
`PersistentReference` placeholders, which are written back exactly as they were read. The protocol is that of
`ZODB.ConflictResolution`.
"""

from __future__ import annotations

import logging
from typing import Any

from objstore.contracts import Conflict
from objstore.errors import ClassNotAllowedError, ConflictError, SerializationError
from objstore.formats import pickles
from objstore.ids import Oid
from objstore.objects.broken import is_stand_in
from objstore.objects.classes import ClassFinder
from objstore.objects.following import is_followed
from objstore.objects.reading import RecordUnpickler, split_class, weak_oid
from objstore.objects.serialize import RecordPickler

logger = logging.getLogger(__name__)


class PersistentReference:
    """Stands for a persistent object in a state that is being merged.

    Two are equal if they refer to the same object, both strongly or both weakly. Different ones cannot be
    ordered, which raises ValueError: the objects may have an order of their own, and nobody has loaded them.
    BTrees compare values by their order, so a bucket in which one reference was replaced is not merged.
    """

    __slots__ = ("data", "klass", "oid", "weak")

    def __init__(self, data: Any, oid: Oid, *, weak: bool) -> None:
        self.data = data
        """The persistent id, as it was read."""
        self.oid = oid
        self.weak = weak
        self.klass = data[1] if isinstance(data, tuple) else None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PersistentReference) and (self.oid, self.weak) == (other.oid, other.weak)

    def __lt__(self, other: object) -> bool:
        if self != other:
            raise ValueError("references have no order while a conflict is resolved")
        return False

    __gt__ = __lt__

    def __hash__(self) -> int:
        return hash(self.oid)

    def __repr__(self) -> str:
        return f"<reference to {self.oid.hex()}>"


class _References:
    """The placeholders of one resolution: one for each persistent id, so that they compare as they should."""

    def __init__(self, database_name: str) -> None:
        self._database_name = database_name
        self._known: dict[tuple[Any, ...], PersistentReference] = {}
        self.written: dict[Oid, None] = {}

    def read(self, data: Any) -> PersistentReference:
        if isinstance(data, tuple):
            key: tuple[Any, ...] = (True, *data)
            oid, weak = Oid(data[0]), False
        elif isinstance(data, bytes):
            key = (True, data)
            oid, weak = Oid(data), False
        else:
            oid, weak = weak_oid(data, self._database_name), True
            key = (False, oid)
        if key not in self._known:
            self._known[key] = PersistentReference(data, oid, weak=weak)
        return self._known[key]

    def write(self, obj: Any) -> Any:
        if type(obj) is not PersistentReference:
            return None
        if not obj.weak:
            self.written[obj.oid] = None
        return obj.data


class ConflictResolver:
    """A `contracts.Resolver`. May be used by any thread."""

    def __init__(self, finder: ClassFinder, database_name: str) -> None:
        self._finder = finder
        self._database_name = database_name

    def __call__(self, conflict: Conflict) -> tuple[bytes, bytes]:
        """The merged record and its packed references.

        Raises ConflictError with class, tids and the reason: the class has no rule, is missing or not
        allowed, or its rule has failed.
        """
        name = _class_name(conflict.new)
        try:
            merged = self._merge(conflict)
        except ConflictError as error:
            raise self._refusal(conflict, name, error.reason or "its class gave up resolving it") from error
        except ClassNotAllowedError as error:
            raise self._refusal(conflict, name, str(error)) from error
        except SerializationError as error:
            raise self._refusal(conflict, name, str(error)) from error
        except Exception as error:
            logger.debug("resolving a conflict of %s %s failed", name, conflict.oid.hex(), exc_info=True)
            reason = f"resolving it failed with {type(error).__name__}: {error}"
            raise self._refusal(conflict, name, reason) from error
        if merged is None:
            raise self._refusal(conflict, name, "its class has no _p_resolveConflict")
        return merged

    def _merge(self, conflict: Conflict) -> tuple[bytes, bytes] | None:
        references = _References(self._database_name)
        unpickler = RecordUnpickler(conflict.new, self._finder, references.read, conflict.oid)
        meta = unpickler.load()
        cls, arguments = split_class(meta, self._finder, conflict.oid)
        if is_stand_in(cls):
            raise SerializationError("its class cannot be imported")
        resolve = getattr(cls.__new__(cls, *(arguments or ())), "_p_resolveConflict", None)
        if resolve is None:
            return None
        new = unpickler.load()
        old = self._state(conflict.old, references, conflict.oid)
        committed = self._state(conflict.committed, references, conflict.oid)
        if is_followed(new) or is_followed(committed):
            raise SerializationError("it is followed, by a collection's indexes or others, so it is not merged")
        state = resolve(old, committed, new)
        data = RecordPickler(references.write).dump(meta, state)
        return data, b"".join(references.written)

    def _state(self, data: bytes, references: _References, oid: Oid) -> Any:
        unpickler = RecordUnpickler(data, self._finder, references.read, oid)
        unpickler.load()
        return unpickler.load()

    def _refusal(self, conflict: Conflict, class_name: str | None, reason: str) -> ConflictError:
        return ConflictError(conflict.oid, conflict.serial, conflict.committed_serial, class_name, reason)


def _class_name(data: bytes) -> str | None:
    try:
        return pickles.class_name(data)
    except SerializationError:
        return None

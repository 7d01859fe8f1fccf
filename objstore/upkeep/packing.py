"""What all of a pack shares: what it was asked for, how far it is to go, and what it has come to."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import NamedTuple, Protocol

from objstore.contracts import PackTarget, Progress
from objstore.formats import pickles
from objstore.ids import Tid
from objstore.upkeep.reachable import OidSet


class PackLimits(NamedTuple):
    """How much a pack does at a time, which bounds the memory it takes and the time for which writers wait.

    `step` objects between two calls of the progress function; `batch` objects and revisions to remove at a
    time, but for the revisions of one object; details of `details` transactions; `moment` objects to visit
    while writers are held, and `patience` tries to get by with that; `outlines` bytes of what the objects of
    buckets refer to, which are kept while they are marked.
    """

    step: int = 1_000
    batch: int = 250_000
    details: int = 100_000
    moment: int = 1_000
    patience: int = 20
    outlines: int = 32 * 2**20


class Counts:
    """What was removed, or would be."""

    def __init__(self) -> None:
        self.objects = 0
        self.revisions = 0
        self.transactions = 0
        self.freed = 0
        self.blobs = 0


class Job(NamedTuple):
    """A pack that runs: its target and bounds."""

    target: PackTarget
    limit: Tid
    protected: frozenset[Tid]
    full: bool
    dry_run: bool
    limits: PackLimits
    progress: Progress
    counts: Counts
    extracted: Callable[[bytes], bytes] = pickles.references
    """Finds the references of a record whose header does not tell them."""


class Marking(Protocol):
    """Marks what can be reached. `upkeep.reachable` has what does."""

    @property
    def live(self) -> OidSet: ...

    @property
    def visits(self) -> int: ...

    def add(self, number: int) -> None: ...

    def revisit(self, number: int) -> None: ...

    def run(self, limit: int | None = None) -> bool: ...


class Ground(Protocol):
    """How a home is packed: object by object, or bucket by bucket."""

    @property
    def seen(self) -> OidSet:
        """What the home has anything of, once it was read."""

    @property
    def marker(self) -> Marking:
        """Finds what can be reached."""

    def read(self) -> None:
        """Read what refers to what, and make roots of what has a revision after the limit, or in a protected
        transaction. Raises CorruptionError."""

    def transactions_to_go(self, doomed: OidSet) -> array[int]:
        """Full: the transactions up to the limit of which no revision stays. Raises CorruptionError."""

    def require_room(self, doomed: OidSet) -> None:
        """Raises StorageFullError where the disk has not the room that removing takes for a while."""

    def remove(self, doomed: OidSet) -> None:
        """Remove what is doomed and what was superseded; in a dry run only count it."""

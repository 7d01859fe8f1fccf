"""Where flushed revisions live: each format and history mode is one `Home`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

from objstore.ids import Oid, Tid
from objstore.revisions import Revision, RevisionSummary, Transaction


class History(StrEnum):
    """Which revisions a store keeps until it is packed."""

    FULL = "full"
    MINIMAL = "minimal"


class Format(StrEnum):
    """How the home lays revisions out in subdirectories."""

    SEGMENTED = "segmented"
    BUSHY = "bushy"
    CHUNKY = "chunky"
    LAWN = "lawn"
    FLAT = "flat"


class Finding(NamedTuple):
    """Something that a check found. `kind` is one of `upkeep.check.KINDS`."""

    kind: str
    path: str
    message: str
    oid: Oid | None = None
    tid: Tid | None = None


class Removal(NamedTuple):
    """What a pack takes from one object: the revisions of `tids`, or all there is of it if `whole`."""

    oid: Oid
    tids: tuple[Tid, ...]
    whole: bool


class Home(Protocol):
    """Where flushed revisions live. One writer (the flusher) and one packer at a time; readers any time.

    Readers need no lock: a lookup during `apply` or `remove` finds what was there before or after. Bytes
    that are not what was written raise `errors.CorruptionError` with path, oid and tid.
    """

    @property
    def history(self) -> History:
        """Full homes keep every revision and the transactions' details, Minimal ones the current revision."""

    @property
    def keeps_superseded(self) -> bool:
        """Whether an older revision stays readable when a newer one is applied.

        If not, the flusher waits until no snapshot needs the older one.
        """

    def prepare(self) -> None:
        """Make the directories that every home of this format has. Durable on return. May be repeated."""

    def current(self, oid: Oid) -> Tid | None:
        """The newest serial of an object, None where the home does not know it."""

    def load(self, oid: Oid, upto: Tid) -> Revision | None:
        """The newest revision with tid <= `upto`, deleted ones included; None where there is none."""

    def record(self, oid: Oid, upto: Tid) -> tuple[bytes | None, Tid] | None:
        """Data and tid of the revision that `load` gives: all that a reader wants, and no more."""

    def revision(self, oid: Oid, tid: Tid) -> Revision | None:
        """The revision of just this tid, without a walk; perhaps one that an interrupted removal has left."""

    def summaries(self, oid: Oid) -> Iterator[RevisionSummary]:
        """All revisions of an object, newest first, without reading their data."""

    def oids(self) -> Iterator[Oid]:
        """Every oid the home has anything of, each once, in no promised order, in bounded memory."""

    def transaction(self, tid: Tid) -> Transaction | None:
        """The details of one transaction; None where they are not kept."""

    def transactions(self, upto: Tid) -> Iterator[Transaction]:
        """The transactions with tid <= `upto`, newest first, read as they are asked for. Minimal: none."""

    def apply(self, batch: Iterable[tuple[Transaction, Sequence[Revision]]]) -> None:
        """Take transactions over from the journal, in the order of their tids. Durable on return.

        Applying the same again changes nothing, also after a crash at any point of the first time. In
        Minimal the newest revision of an object wins, and an older one never replaces a newer.
        """

    def maintain(self, horizon: Tid) -> None:
        """Bring what was applied into a form that is faster to read, as far as that is due.

        In Minimal this may drop what a revision with a tid <= `horizon` supersedes. Called after what was
        applied is known to be flushed.
        """

    def remove(self, removals: Sequence[Removal]) -> int:
        """Remove revisions. Durable on return; the bytes that became free.

        After a crash at any point each object is whole, or has less of what was to go; never a pointer to
        what is gone. What an interrupted removal left is removed by naming the object again.
        """

    def remove_transactions(self, tids: Sequence[Tid]) -> int:
        """Remove the details of transactions. Durable on return; the bytes that became free."""

    def refresh(self, flushed: Tid) -> None:
        """Another process has changed the home, and all up to `flushed` is there now: look at it anew."""

    def findings(self) -> Iterator[Finding]:
        """Read everything and tell what is wrong within files and among the files of one object.

        Checksums, names against contents, pointers, foreign and left-over files. Never raises for damage.
        """

    def close(self) -> None:
        """Let go of what is open. Who asks for something nevertheless has it opened again."""

"""What stands around the home: the places of a store's directory, its marks, and the journal.

A journal is read as recovery reads it, without acting on it, and every waiting transaction is verified as a
whole. In a store that is in use, names come and go: damage counts if it is met twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from objstore.contracts import Entry, Finding
from objstore.engine.journal import Journal, Waiting
from objstore.engine.marks import FLUSHED, Marks
from objstore.engine.recovery import Examination, examine
from objstore.engine.store import DirectoryStore
from objstore.errors import CorruptionError
from objstore.formats.layouts import (
    TEMPORARY,
    TRANSACTION_FILE,
    DoneName,
    done_name,
    parse_journal_name,
    parse_mark_name,
    parse_waiting_blob_name,
    temp_name,
)
from objstore.ids import NO_TID, Tid
from objstore.upkeep.use import Use

_FOREIGN = "this is no file of the store"
_REMOVED_LATER = "opening the store for writing removes it"


class Surroundings:
    """Examines what stands around the home of a store. `waiting` is what the journal held then."""

    def __init__(self, store: DirectoryStore, use: Use) -> None:
        self._store = store
        self._use = use
        self._filesystem = store.filesystem
        self._directory = store.directory
        self._journal = Journal(store.filesystem, store.directory.journal)
        self._examination = self._examine()
        self.waiting: list[Waiting] = self._examination.waiting

    def _examine(self) -> Examination:
        found = self._examine_once()
        while found.damage and self._use.noticed():
            again = self._examine_once()
            if found.damage == again.damage:
                break
            found = again
        return found

    def _examine_once(self) -> Examination:
        marks = self._marks()
        return examine(self._journal, marks, self._store.last_tid() if self._use.noticed() else NO_TID)

    def _marks(self) -> Marks:
        marks = Marks(self._filesystem, self._directory.marks)
        marks.read()
        return marks

    def findings(self) -> Iterator[Finding]:
        """Tell what is wrong around the home."""
        yield from self._place_findings()
        yield from self._mark_findings()
        yield from self._examination.damage
        yield from self._journal_findings()

    # --- places ---

    def _place_findings(self) -> Iterator[Finding]:
        directory = self._directory
        known = directory.places
        yield from self._foreign_in(
            directory.path, lambda entry: f"{directory.path}/{entry.name}" in known and entry.is_directory
        )
        settings = _name(directory.settings)
        yield from self._foreign_in(
            directory.locks, lambda entry: f"{directory.locks}/{entry.name}" in directory.lock_files
        )
        yield from self._foreign_in(directory.config, lambda entry: entry.name.removesuffix(TEMPORARY) == settings)
        if self._filesystem.exists(directory.settings + TEMPORARY):
            yield Finding("leftover", directory.settings + TEMPORARY, "an interrupted creation left this")
        yield from self._foreign_in(directory.lost_and_found, _was_set_aside)
        for entry in self._entries(directory.lost_and_found) or []:
            if _was_set_aside(entry):
                path = f"{directory.lost_and_found}/{entry.name}"
                yield Finding("aside", path, "recovery moved this here, because it was never acknowledged")

    def _entries(self, place: str) -> list[Entry] | None:
        """What a directory holds, sorted: nothing where it is missing, None where it cannot be read."""
        try:
            return sorted(self._filesystem.entries(place), key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError:
            return None

    def _foreign_in(self, place: str, is_ours: Callable[[Entry], bool]) -> Iterator[Finding]:
        entries = self._entries(place)
        if entries is None:
            yield Finding("unreadable", place, "the system does not let this directory be read")
            return
        for entry in entries:
            if not is_ours(entry):
                yield Finding("foreign", f"{place}/{entry.name}", _FOREIGN)

    def _mark_findings(self) -> Iterator[Finding]:
        place = self._directory.marks
        yield from self._foreign_in(place, lambda entry: parse_mark_name(entry.name) is not None)
        if self._use.noticed():
            return  # a mark that is being advanced has two names for a moment
        greatest: dict[str, bytes] = {}
        names = [entry.name for entry in self._entries(place) or []]
        marks = [(name, mark) for name in names if (mark := parse_mark_name(name)) is not None]
        for _, (kind, value) in marks:
            greatest[kind] = max(value, greatest.get(kind, value))
        for name, (kind, value) in marks:
            if value < greatest[kind]:
                yield Finding("leftover", f"{place}/{name}", f"a later mark replaced it; {_REMOVED_LATER}")

    # --- the journal ---

    def _journal_findings(self) -> Iterator[Finding]:
        found, place = self._examination, self._directory.journal
        for name in sorted(found.foreign):
            yield Finding("foreign", f"{place}/{name}", _FOREIGN)
        if not self._use.noticed():  # else these are at work, or are about to be recycled
            yield from self._leftovers(place)
        for waiting in found.waiting:
            yield from self._transaction_findings(waiting)
        for entry in self._entries(place) or []:
            if entry.is_directory and parse_journal_name(entry.name) is not None:
                yield from self._foreign_in(f"{place}/{entry.name}", _is_of_a_transaction)

    def _leftovers(self, place: str) -> Iterator[Finding]:
        found = self._examination
        for temporary in found.unfinished:
            reason = f"it was being written when its process ended; {_REMOVED_LATER}"
            yield Finding("leftover", f"{place}/{temp_name(temporary.token)}", reason)
        for done in found.flushed:
            path = f"{place}/{done_name(done.tid, done.previous)}"
            yield Finding("leftover", path, f"the home has it; {_REMOVED_LATER}", tid=done.tid)
        if not found.damage:
            for candidate in found.unreached:
                reason = "it was never acknowledged; opening the store for writing moves it to lost+found"
                yield Finding("leftover", f"{place}/{candidate.directory}", reason, tid=candidate.tid)

    def _transaction_findings(self, waiting: Waiting) -> Iterator[Finding]:
        """Read a transaction as the flusher will."""
        try:
            self._journal.revisions(waiting)
        except (CorruptionError, OSError) as error:
            if waiting.tid <= Tid(self._marks().get(FLUSHED)):
                return  # flushed since
            if isinstance(error, CorruptionError):
                yield Finding("checksum", error.path, error.reason, error.oid, waiting.tid)
            else:
                yield Finding("unreadable", waiting.path, error.strerror or str(error), tid=waiting.tid)


def _is_of_a_transaction(entry: Entry) -> bool:
    return entry.name == TRANSACTION_FILE or parse_waiting_blob_name(entry.name) is not None


def _was_set_aside(entry: Entry) -> bool:
    """Whether recovery gives such names: that of a transaction, with a number where it was taken."""
    name, _, attempt = entry.name.partition(".")
    return isinstance(parse_journal_name(name), DoneName) and (not attempt or attempt.isdecimal())


def _name(path: str) -> str:
    return path.rpartition("/")[2]

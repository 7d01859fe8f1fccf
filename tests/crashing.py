"""Crash tests: a script runs on the simulated filesystem, and every state that a crash may leave is judged.

A `Script` drives a store through the contracts and remembers what it was told: which transactions were
acknowledged, when, and what they wrote. Because the filesystem recorded every operation, one run serves for
a crash after each of them. `Judge` opens a store on each state and holds it against the script: all that was
acknowledged is there, what was not is there whole or not at all, and the store goes on working.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from random import Random

import pytest
from durability import CrashState
from simulated import Crash, SimulatedFilesystem
from stores import PATH, add_up, open_on, record, refuse

from objstore.contracts import Filesystem, Format, History, Resolver
from objstore.engine.failures import storage_error
from objstore.engine.pending import Pending
from objstore.engine.store import DirectoryStore
from objstore.errors import BlobMissingError, POSKeyError, StorageFailedError, StoreMissingError
from objstore.formats.pickles import BLOB_RECORD
from objstore.ids import NO_TID, ROOT, Oid, Tid, number, oid_from
from objstore.revisions import Details
from objstore.upkeep.check import check

NEVER = 2**62


@dataclass(frozen=True, slots=True)
class Depth:
    """How thoroughly to look: states for a crash after one operation, and after which of the operations."""

    limit: int
    every: int


every_depth = pytest.mark.parametrize(
    "depth",
    [
        pytest.param(Depth(limit=4, every=8), id="some"),
        pytest.param(Depth(limit=40, every=1), id="many", marks=pytest.mark.long),
    ],
)


class Clock:
    """Goes on by a millisecond whenever it is asked."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self.now = start

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


@dataclass(frozen=True, slots=True)
class Commit:
    """A transaction; `done` operations had happened when it was acknowledged, `begun` when it began.

    One that failed such that nobody knows whether it is durable was never acknowledged, and has no tid.
    """

    begun: int
    done: int
    tid: Tid
    details: Details
    writes: Mapping[Oid, bytes | None]
    blobs: Mapping[Oid, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Large:
    """A value to be committed as a blob."""

    content: bytes


@dataclass(frozen=True, slots=True)
class Pack:
    """A pack up to a tid, and the objects that it may remove. `done` is `NEVER` where it failed."""

    begun: int
    done: int
    upto: Tid
    garbage: frozenset[Oid]


class Script:
    """A store on a simulated filesystem, and all that its user knows."""

    def __init__(self, history: History, format: Format, fs: SimulatedFilesystem | None = None) -> None:
        self.history = history
        self.format = format
        self.fs = fs or SimulatedFilesystem()
        self.clock = Clock()
        self.commits: list[Commit] = []
        self.in_doubt: Commit | None = None
        self.packs: list[Pack] = []
        self.oids: list[tuple[int, Oid]] = []
        self.store = open_on(self.fs, history, format, self.clock)
        self.created = self.fs.operations
        self.identity = self.store.settings.identity
        self._serials: dict[Oid, Tid] = {}

    # --- what it does ---

    def reopen(self, *, flush: bool = True) -> None:
        """Close the store and open it again."""
        self.store.close()
        self.store = open_on(self.fs, self.history, self.format, self.clock, create=False, flush_on_close=flush)

    def restart(self) -> None:
        """Open the store again after its process was killed, without a power cut.

        What was under way then was committed or not: what the store shows now must stay so.
        """
        self.fs.restart()
        self.store = open_on(self.fs, self.history, self.format, self.clock, create=False)
        last, doubt = self.store.last_tid(), self.in_doubt
        if doubt is not None:
            if last != (self.commits[-1].tid if self.commits else NO_TID):
                self._acknowledge(replace(doubt, tid=last, done=self.fs.operations))
            self.in_doubt = replace(doubt, done=self.fs.operations)

    def new_oid(self) -> Oid:
        oid = self.store.new_oid()
        self.oids.append((self.fs.operations, oid))
        return oid

    def commit(
        self,
        values: Mapping[int, object],
        references: Mapping[int, Iterable[int]] | None = None,
        *,
        note: str = "a commit",
        resolver: Resolver = refuse,
        meanwhile: Callable[[], None] | None = None,
        restored: Tid | None = None,
    ) -> Tid:
        """Commit values by the oids' numbers; None deletes. `meanwhile` runs before the vote.

        With a tid given from outside, the transaction is restored.
        """
        begun = self.fs.operations
        details = Details("script", note, b'{"number": %d}' % len(self.commits))
        view = self.store.view()
        try:
            if restored is None:
                pending = self.store.begin(details, view, resolver)
            else:
                pending = self.store.restore(restored, details)
            writes: dict[Oid, bytes | None] = {}
            blobs: dict[Oid, bytes] = {}
            for at, value in values.items():
                oid = oid_from(at)
                data, packed = None, None
                if isinstance(value, Large):
                    try:
                        self._store_blob(pending, oid, value)
                    except OSError as error:  # as an application meets it that writes into the file
                        pending.abort()
                        raise storage_error(PATH, error) from error
                    writes[oid], blobs[oid] = BLOB_RECORD, value.content
                    continue
                if value is not None:
                    data, packed = record(value, tuple(oid_from(to) for to in (references or {}).get(at, ())))
                pending.store(oid, self._serials.get(oid, NO_TID), data, packed)
                writes[oid] = data
            if meanwhile is not None:
                meanwhile()
                begun = self.fs.operations
            resolved = pending.vote()
            try:
                tid = pending.finish()
            except (StorageFailedError, Crash):
                self.in_doubt = Commit(begun, NEVER, NO_TID, details, writes, blobs)
                raise
        finally:
            view.close()
        for oid in resolved:
            writes[oid] = self.store.revision(oid, tid).data
        self._acknowledge(Commit(begun, self.fs.operations, tid, details, writes, blobs))
        return tid

    def _store_blob(self, pending: Pending, oid: Oid, value: Large) -> None:
        files = self.store.blobs
        path = files.temporary()
        try:
            with files.open(path, "w") as file:
                file.write(value.content)
            pending.store_blob(oid, self._serials.get(oid, NO_TID), BLOB_RECORD, b"", path)
        except BaseException:
            files.discard(path)
            raise

    def give_up(self, values: Mapping[int, object], *, vote: bool) -> None:
        """Write a transaction and abort it, before or after the vote."""
        with_view = self.store.view()
        pending = self.store.begin(Details("script", "given up"), with_view, refuse)
        for at, value in values.items():
            if isinstance(value, Large):
                self._store_blob(pending, oid_from(at), value)
                continue
            data, packed = record(value)
            pending.store(oid_from(at), self._serials.get(oid_from(at), NO_TID), data, packed)
        if vote:
            pending.vote()
        pending.abort()
        with_view.close()

    def undo(self, tid: Tid) -> Tid:
        """Undo a transaction whose objects nobody changed since."""
        begun = self.fs.operations
        details = Details("script", "an undo")
        view = self.store.view()
        pending = self.store.begin(details, view, add_up)
        oids = pending.undo(tid)
        before = known(self.commits)
        writes, blobs = {}, {}
        for oid in oids:
            older = [(at, data) for at, data in before[oid] if at < tid]
            writes[oid] = older[-1][1] if older else None
            if writes[oid] == BLOB_RECORD:
                blobs[oid] = known_blobs(self.commits)[oid, older[-1][0]]
        pending.vote()
        try:
            undone = pending.finish()
        except (StorageFailedError, Crash):
            self.in_doubt = Commit(begun, NEVER, NO_TID, details, writes, blobs)
            raise
        view.close()
        self._acknowledge(Commit(begun, self.fs.operations, undone, details, writes, blobs))
        return undone

    def _acknowledge(self, commit: Commit) -> None:
        self.commits.append(commit)
        for oid in commit.writes:
            self._serials[oid] = commit.tid

    def flush(self) -> None:
        self.store.flush()

    def pack(self, upto: Tid) -> None:
        pack = Pack(self.fs.operations, NEVER, upto, garbage(self.commits, upto))
        self.packs.append(pack)
        self.store.pack(upto)
        self.packs[-1] = replace(pack, done=self.fs.operations)


def known(commits: Iterable[Commit]) -> dict[Oid, list[tuple[Tid, bytes | None]]]:
    """The revisions of every object, oldest first."""
    revisions: dict[Oid, list[tuple[Tid, bytes | None]]] = {}
    for commit in commits:
        for oid, data in commit.writes.items():
            revisions.setdefault(oid, []).append((commit.tid, data))
    return revisions


def known_blobs(commits: Iterable[Commit]) -> dict[tuple[Oid, Tid], bytes]:
    """What every blob of every revision holds."""
    return {(oid, commit.tid): content for commit in commits for oid, content in commit.blobs.items()}


def garbage(commits: list[Commit], upto: Tid) -> frozenset[Oid]:
    """The objects that a pack may remove: no state from `upto` on reaches them from the root."""
    reached: set[Oid] = set()
    for commit in commits:
        if commit.tid >= upto:
            records = {
                oid: [data for tid, data in revisions if tid <= commit.tid][-1]
                for oid, revisions in known(commits).items()
                if revisions[0][0] <= commit.tid
            }
            waiting = [ROOT]
            seen: set[Oid] = set()
            while waiting:
                oid = waiting.pop()
                data = records.get(oid)
                if oid not in seen and data is not None:
                    seen.add(oid)
                    waiting.extend(references_of(data))
            reached |= seen
    return frozenset(known(commits).keys() - reached)


def references_of(data: bytes) -> tuple[Oid, ...]:
    """The references that `stores.record` put into a record; a blob's has none."""
    if data == BLOB_RECORD:
        return ()
    file = io.BytesIO(data)
    pickle.load(file)
    return pickle.load(file)[1]


# --- judging -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Judge:
    """Tries the states that crashes of a script may leave, each once, and counts them.

    `allowed` are the kinds of findings that a check may have at the end.
    """

    script: Script
    seed: int = 1
    tried: int = 0
    allowed: tuple[str, ...] = ("unreachable", "aside")
    _seen: set[tuple[bytes, int]] = field(default_factory=set)

    def sweep(self, start: int | None = None, stop: int | None = None, *, limit: int) -> None:
        """Judge up to `limit` states for a crash after every operation from `start` (the store's creation)."""
        fs = self.script.fs
        first = self.script.created if start is None else start
        for after in range(first, (fs.operations if stop is None else stop) + 1):
            for state in fs.crash_states(after, rng=Random(f"{self.seed} {after}"), limit=limit):
                self.judge(state, after)

    def sweep_twice(self, *, every: int, limit: int, again: int) -> None:
        """The same for every so many operations, with a second crash after every operation of recovery."""
        fs = self.script.fs
        for after in range(self.script.created, fs.operations + 1, every):
            rng = Random(f"{self.seed} {after}")
            for state in fs.crash_states(after, rng=rng, limit=limit):
                recovering = SimulatedFilesystem(state)
                self._open(recovering)
                for point in range(1, recovering.operations + 1):
                    for second in recovering.crash_states(point, rng=rng, limit=again):
                        self.judge(second, after, f"{state.describe()}\nthen, while opening, ")

    def judge(self, state: CrashState, after: int, before: str = "") -> None:
        """Open the store that a crash has left, and hold it against what the script knows."""
        acknowledged = sum(commit.done <= after for commit in self.script.commits)
        key = (state.digest, acknowledged)
        if key in self._seen:
            return
        self._seen.add(key)
        self.tried += 1
        try:
            self._judge(SimulatedFilesystem(state), after)
        except BaseException as error:
            error.add_note(
                f"{self.script.history} {self.script.format}, seed {self.seed}; {before}{state.describe()}"
            )
            raise

    def _judge(self, fs: SimulatedFilesystem, after: int) -> None:
        script = self.script
        store = self._open(fs)
        assert store.settings.identity == script.identity, "another store was created"
        there = self._commits_there(store, after)
        packs = [pack for pack in script.packs if pack.begun <= after]
        judge_objects(store, there, packs)
        if script.history is History.FULL:
            judge_history(store, there, packs)
        store = self._go_on(store, there, packs, after)
        for pack in packs:
            if after < pack.done:  # what an interrupted pack leaves is removed by the next one
                store.pack(pack.upto)
                judge_objects(store, there, packs)
        # Segments that a merge or a pack has replaced do not count, and go when their bucket changes.
        # So do blobs that a pack, or in Minimal a flush, would have removed: the next pack does.
        replaced = ("leftover",) if script.format is Format.SEGMENTED or known_blobs(script.commits) else ()
        assert_sound(store, *self.allowed, *replaced)
        store.close()

    def _open(self, filesystem: Filesystem) -> DirectoryStore:
        return open_on(filesystem, self.script.history, self.script.format, self.script.clock, create=False)

    def _commits_there(self, store: DirectoryStore, after: int) -> list[Commit]:
        """The transactions that the store has: all that were acknowledged, and of those under way the first."""
        commits = sorted(self.script.commits, key=lambda commit: commit.tid)
        last = store.last_tid()
        doubt = self.script.in_doubt
        if doubt is not None and after < doubt.done and last not in (NO_TID, *(commit.tid for commit in commits)):
            commits = sorted([*commits, replace(doubt, tid=last)], key=lambda commit: commit.tid)
        there = [commit for commit in commits if commit.tid <= last]
        assert last == (there[-1].tid if there else NO_TID), f"the last tid {last.hex()} belongs to nobody"
        for commit in there:
            assert commit.begun < after, f"transaction {commit.tid.hex()} is there before it began"
        for commit in commits[len(there) :]:
            assert commit.done > after, f"transaction {commit.tid.hex()} was acknowledged and is lost"
        return there

    def _go_on(self, store: DirectoryStore, there: list[Commit], packs: list[Pack], after: int) -> DirectoryStore:
        """Commit to the store, flush it, and look again; then open it once more, and look again."""
        handed_out = {oid for at, oid in self.script.oids if at <= after} | known(there).keys()
        view = store.view()
        pending = store.begin(Details("judge"), view, refuse)
        new = store.new_oid()
        assert new not in handed_out, f"the oid {new.hex()} was handed out before"
        writes = {new: record("new")[0], ROOT: record("after the crash", self._kept(there, packs, new))[0]}
        pending.store(new, NO_TID, *record("new"))
        serial = known(there)[ROOT][-1][0] if ROOT in known(there) else NO_TID
        pending.store(ROOT, serial, *record("after the crash", self._kept(there, packs, new)))
        pending.vote()
        tid = pending.finish()
        view.close()
        assert not there or tid > there[-1].tid, "tids do not increase"
        there.append(Commit(after, after, tid, Details("judge"), writes))
        judge_objects(store, there, packs)
        store.flush()
        judge_objects(store, there, packs)
        store.close()
        store = self._open(store.filesystem)
        assert store.last_tid() == tid
        judge_objects(store, there, packs)
        return store

    def _kept(self, there: list[Commit], packs: list[Pack], new: Oid) -> tuple[Oid, ...]:
        """What the root refers to from now on: everything that there is."""
        gone = {oid for pack in packs for oid in pack.garbage}
        current = {oid: revisions[-1][1] for oid, revisions in known(there).items()}
        return (new, *(oid for oid, data in current.items() if data is not None and oid not in gone | {ROOT}))


def judge_objects(store: DirectoryStore, there: list[Commit], packs: list[Pack]) -> None:
    """Every object has its newest revision, and none that was never committed."""
    gone = {oid for pack in packs for oid in pack.garbage}
    view = store.view()
    for oid, revisions in known(there).items():
        tid, data = revisions[-1]
        try:
            found = view.load(oid)
        except POSKeyError:
            assert data is None or oid in gone, f"object {oid.hex()} is lost"
        else:
            assert found == (data, tid), f"object {oid.hex()} is not as it was committed"
            judge_blob(store, oid, tid, known_blobs(there))
    beyond = oid_from(max((number(oid) for oid in known(there)), default=0) + 1)
    try:
        view.load(beyond)
    except POSKeyError:
        view.close()
        return
    raise AssertionError(f"object {beyond.hex()} was never committed")


def judge_history(store: DirectoryStore, there: list[Commit], packs: list[Pack]) -> None:
    """Every transaction is there with its details, and every revision: but for what packs may drop."""
    upto = max((pack.upto for pack in packs), default=NO_TID)
    gone = {oid for pack in packs for oid in pack.garbage}
    found = list(store.transactions())
    tids = [transaction.tid for transaction in found]
    assert tids == sorted(tids, reverse=True)
    by_tid = {commit.tid: commit for commit in there}
    assert set(tids) <= by_tid.keys(), "a transaction that nobody committed"
    assert set(tids) >= {tid for tid in by_tid if tid > upto}, "a transaction is missing"
    for transaction in found:
        assert transaction.details == by_tid[transaction.tid].details
        assert set(transaction.oids) == by_tid[transaction.tid].writes.keys()
    for oid, revisions in known(there).items():
        for at, (tid, data) in enumerate(revisions):
            superseded = at + 1 < len(revisions) and revisions[at + 1][0] <= upto
            may_be_gone = superseded or oid in gone or (data is None and tid <= upto)
            try:
                assert store.revision(oid, tid).data == data
                judge_blob(store, oid, tid, known_blobs(there))
            except POSKeyError:
                assert may_be_gone, f"revision {tid.hex()} of object {oid.hex()} is missing"


def judge_blob(store: DirectoryStore, oid: Oid, tid: Tid, blobs: Mapping[tuple[Oid, Tid], bytes]) -> None:
    """The blob of a revision, if it has one, is what was committed."""
    if (oid, tid) in blobs:
        try:
            with store.blobs.open_committed(oid, tid) as file:
                found = file.read()
        except BlobMissingError:
            raise AssertionError(f"the blob of object {oid.hex()} at {tid.hex()} is lost") from None
        assert found == blobs[oid, tid], f"the blob of object {oid.hex()} is not as it was committed"


def assert_sound(store: DirectoryStore, *allowed: str) -> None:
    """The check finds nothing but what is allowed: by default, objects that nothing refers to."""
    findings = [finding for finding in check(store) if finding.kind not in (allowed or ("unreachable",))]
    assert not findings, findings


def judge_creation(state: CrashState, history: History, format: Format, *, acknowledged: bool) -> None:
    """After a crash during creation there is a store, or none and it can be created; never anything else."""
    fs = SimulatedFilesystem(state)
    try:
        store = open_on(fs, history, format, create=False)
    except StoreMissingError:
        assert not acknowledged
        store = open_on(fs, history, format)
    assert (store.history_mode, store.settings.format) == (history, format)
    assert store.last_tid() == NO_TID
    oid = store.new_oid()
    view = store.view()
    pending = store.begin(Details("judge"), view, refuse)
    pending.store(ROOT, NO_TID, *record("root", (oid,)))
    pending.store(oid, NO_TID, *record("first"))
    pending.vote()
    tid = pending.finish()
    view.close()
    store.flush()
    assert_sound(store)
    store.close()
    again = open_on(fs, history, format, create=False)
    assert again.last_tid() == tid
    assert again.view().load(oid) == (record("first")[0], tid)

"""Packing while others read and commit: nothing that anybody may reach disappears, at any moment."""

from __future__ import annotations

from collections import Counter

import pytest
from durability import Kind
from packing import Progress, age, before, home_oids, packing_store, reachable, tids_of
from simulated import SimulatedFilesystem
from store_fixtures import stores_of
from stores import COMBINATIONS, commit, contents, record, refuse

from objstore.contracts import History
from objstore.errors import DanglingReferenceError, HistoryMissingError, StorageFailedError
from objstore.ids import MAX_TID, oid_from
from objstore.machine.memory import MemoryFilesystem
from objstore.revisions import Details
from objstore.upkeep.pack import PackLimits

PHASES = {
    History.FULL: ["reading", "marking", "reading transactions", "removing", "removing transactions"],
    History.MINIMAL: ["reading", "marking", "removing"],
}


@pytest.fixture
def filesystem():
    return MemoryFilesystem()


store = stores_of(COMBINATIONS, packing_store)


def relink(store, at, to):
    """Make a new reference."""
    return commit(store, {at: f"refers to {to}"}, {at: to})


class TestDoomed:
    """What a pack removed may still be in an application's cache."""

    @pytest.fixture
    def packed(self, store):
        commit(store, {0: "root", 1: "kept", 2: "garbage", 3: "below"}, {0: (1,), 2: (3,)})
        age(store)
        store.pack(MAX_TID)
        assert contents(store, range(4)) == {0: "root", 1: "kept"}
        return store

    def test_a_reference_to_it_is_refused(self, packed):
        for gone in (2, 3):
            with pytest.raises(DanglingReferenceError) as caught:
                relink(packed, 1, (gone,))
            assert caught.value.oid == oid_from(gone)
        with pytest.raises(DanglingReferenceError):
            commit(packed, {1: "refers to a new object", 5: "which refers to it"}, {1: (5,), 5: (2,)})
        assert contents(packed, range(6)) == {0: "root", 1: "kept"}

    def test_so_is_a_change_of_it(self, packed):
        view = packed.view()
        pending = packed.begin(Details(), view, refuse)
        pending.store(oid_from(2), packed.last_tid(), *record("changed"))
        with pytest.raises(DanglingReferenceError):
            pending.vote()
        view.close()

    def test_so_is_making_it_anew(self, packed):
        """What is being removed could not be told from what was made since."""
        with pytest.raises(DanglingReferenceError):
            commit(packed, {2: "made again"})

    def test_later_packs_do_not_forget_it(self, packed):
        for _ in range(3):
            age(packed)
            packed.pack(MAX_TID)
        with pytest.raises(DanglingReferenceError):
            relink(packed, 1, (3,))

    def test_everything_else_is_committed(self, packed):
        relink(packed, 1, (0, 1, 4))
        commit(packed, {4: "new"})
        assert reachable(packed, packed.view()) == {0: "root", 1: "refers to (0, 1, 4)", 4: "new"}

    def test_a_new_process_has_nothing_in_its_caches(self, packed):
        packed.close()
        again = packing_store(packed.filesystem, packed.history_mode, packed.settings.format)
        commit(again, {2: "copied in again"})
        relink(again, 1, (2,))
        assert reachable(again, again.view())[2] == "copied in again"
        again.close()


class TestCommitsMeanwhile:
    def test_a_reference_made_before_the_end_of_marking_saves_what_it_leads_to(self, store):
        commit(store, {0: "root", 1: "x", 2: "below x", 3: "below that", 4: "garbage"}, {1: (2,), 2: (3,)})
        age(store)
        done = []

        def link(phase):
            if phase == "marking" and not done:
                done.append(relink(store, 0, (1,)))

        report = store.pack(MAX_TID, progress=Progress(link))
        assert done
        assert report.objects_removed == 1
        assert list(reachable(store, store.view())) == [0, 1, 2, 3]

    def test_one_made_after_that_is_refused(self, store):
        commit(store, {0: "root", 1: "x", 2: "below x", 5: "kept"}, {0: (5,), 1: (2,)})
        age(store)
        refused = []

        def link(phase):
            if phase.startswith("removing"):
                with pytest.raises(DanglingReferenceError):
                    relink(store, 0, (5, 1))
                refused.append(phase)

        store.pack(MAX_TID, progress=Progress(link))
        assert refused
        assert contents(store, range(6)) == {0: "root", 5: "kept"}

    @pytest.mark.parametrize("patience", [0, 2])
    def test_more_is_linked_at_every_round_than_writers_wait_for(self, store, patience):
        """They go on between the rounds, until the last, which ends however long it takes."""
        store.close()
        limits = PackLimits(step=1000, moment=1, patience=patience)
        store = packing_store(store.filesystem, store.history_mode, store.settings.format, limits)
        heads = list(range(10, 210, 20))
        chain = {at: (at + 1,) for head in heads for at in range(head, head + 19)}
        commit(store, {0: "root", **dict.fromkeys([*chain, *(head + 19 for head in heads)], "chain")}, chain)
        age(store)
        linked = []

        def link(phase):
            if phase == "marking" and len(linked) < len(heads):
                linked.append(heads[len(linked)])
                commit(store, {0: "root"}, {0: tuple(linked)})

        store.pack(MAX_TID, progress=Progress(link))
        assert len(linked) == patience + 2
        found = reachable(store, store.view())
        assert len(found) == 1 + 20 * len(linked)
        assert home_oids(store) == [0, *range(10, 10 + 20 * len(linked))]
        store.close()

    def test_references_that_move_in_every_phase(self, store):
        """RelStorage#325: marking saw several snapshots. Whatever moves, nothing reachable disappears."""
        holders = (1, 20, 40, 60)
        garbage = dict.fromkeys(range(70, 90), "garbage")
        commit(store, {0: "root", **dict.fromkeys(holders, "holder"), 30: "x", 31: "y", **garbage}, {1: (30,)})
        commit(store, {0: "root", 30: "x"}, {0: holders, 30: (31,)})
        age(store)
        moves = Counter()

        def move(phase):
            if moves[phase] % 20 < 19:
                old, new = (holders[at % len(holders)] for at in (moves.total(), moves.total() + 1))
                commit(store, {old: "empty", new: "holds x"}, {new: (30,)})
            moves[phase] += 1
            if moves.total() % 7 == 0:
                store.flush()

        for _ in range(3):
            moves.clear()
            store.pack(MAX_TID, progress=Progress(move))
            assert list(moves) == PHASES[store.history_mode]
            view = store.view()
            assert set(reachable(store, view)) == {0, *holders, 30, 31}
            view.close()
        assert home_oids(store) == sorted({0, *holders, 30, 31})

    def test_what_is_created_meanwhile_stays(self, store):
        commit(store, {0: "root", **dict.fromkeys(range(1, 20), "garbage")})
        age(store)
        made = []

        def create(_phase):
            at = 1000 + 3 * len(made)
            if len(made) < 100:
                commit(store, dict.fromkeys(range(at, at + 3), "new"), {at: (at + 1,), at + 1: (at + 2,)})
                made.append(at)
            if len(made) % 2:
                store.flush()

        store.pack(MAX_TID, progress=Progress(create))
        relink(store, 0, tuple(made))
        found = reachable(store, store.view())
        assert len(found) == 1 + 3 * len(made) > 50

    def test_an_object_that_is_changed_meanwhile_is_not_taken_for_garbage(self, store):
        commit(store, {0: "root", **dict.fromkeys(range(1, 9), "garbage")})
        age(store)
        changed = []

        def change(phase):
            if phase == "marking" and not changed:
                changed.append(commit(store, {3: "changed", 4: "changed"}))
                store.flush()

        store.pack(MAX_TID, progress=Progress(change))
        assert contents(store, range(9)) == {0: "root", 3: "changed", 4: "changed"}

    def test_a_commit_of_which_nobody_knows_stops_the_pack(self):
        """A commit that may or may not be durable may refer to anything."""
        filesystem = SimulatedFilesystem()
        store = packing_store(filesystem)
        journal = store.directory.journal
        commit(store, {0: "root", 1: "garbage"})
        age(store)

        def fail(phase):
            if phase == "marking" and not store.statistics()["journal_transactions"]:
                filesystem.fail_at(
                    lambda operation: operation.kind is Kind.SYNC and operation.path.startswith(journal),
                    OSError(5, "I/O error"),
                )
                with pytest.raises(StorageFailedError):
                    relink(store, 0, (1,))

        with pytest.raises(StorageFailedError):
            store.pack(MAX_TID, progress=Progress(fail))
        with pytest.raises(StorageFailedError):
            store.pack(MAX_TID)
        assert home_oids(store) == [0, 1]


class TestSnapshots:
    def test_a_view_reads_all_it_read_before(self, store):
        commit(store, {0: "root", 1: "a", 2: "b"}, {0: (1, 2)})
        view = store.view()
        commit(store, {0: "without b", 1: "a, changed"}, {0: (1,)})
        age(store)
        store.flush()
        store.pack(MAX_TID)
        assert reachable(store, view) == {0: "root", 1: "a", 2: "b"}
        view.close()
        age(store)
        store.pack(MAX_TID)
        assert contents(store, range(3)) == {0: "without b", 1: "a, changed"}

    def test_the_oldest_view_holds_a_pack_back(self, store):
        first = commit(store, {0: 0})
        view = store.view()
        for at in range(1, 4):
            commit(store, {0: at})
        assert store.pack(MAX_TID).upto == first
        view.advance()
        assert store.pack(MAX_TID).upto == view.snapshot
        view.close()

    def test_nobody_gets_a_view_of_what_is_being_packed(self):
        store = packing_store(MemoryFilesystem())
        tids = [commit(store, {0: at}) for at in range(6)]

        def look(_phase):
            with pytest.raises(HistoryMissingError):
                store.view(before(tids[3]))
            assert contents(store, [0], at=tids[3]) == {0: 3}

        progress = Progress(look)
        store.pack(tids[3], progress=progress)
        assert progress.phases == PHASES[History.FULL]
        assert tids_of(store, 0) == tids[3:]

    def test_after_a_dry_run_everybody_does_again(self):
        store = packing_store(MemoryFilesystem())
        tids = [commit(store, {0: at}) for at in range(6)]
        store.pack(tids[3], dry_run=True)
        assert contents(store, [0], at=tids[1]) == {0: 1}

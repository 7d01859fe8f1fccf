"""Sequences: no number twice, whoever draws and dies; and without a gap, where that is promised."""

from __future__ import annotations

from itertools import islice
from threading import Barrier, Thread

import pytest
import ZODB
from BTrees.LOBTree import LOBTree
from BTrees.OOBTree import OOBTree
from databases import abort, commit, opened
from sequence_work import draw, draw_gap_free, draw_in_child, draw_until_killed
from siblings import Nursery
from ZODB.MappingStorage import MappingStorage

import objstore
from objstore.collections import GapFreeSequence, Sequence
from objstore.errors import ConflictError, ReadOnlyError, UsageError

pytest_plugins = ["database_fixtures"]


def in_threads(count, work):
    """Run something in several threads at once; what it returned or raised in each."""
    barrier, results = Barrier(count), []

    def run():
        barrier.wait()
        try:
            results.append(work())
        except Exception as error:  # noqa: BLE001 - shown by whoever compares the results
            results.append(error)

    threads = [Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def stored(db, **options):
    with db.transaction() as connection:
        connection.root.sequence = Sequence(**options)
    return db


class TestSequence:
    def test_numbers_of_one_process_ascend(self, some):
        stored(some, block=10)
        with some.transaction() as connection:
            sequence = connection.root.sequence
            assert [sequence.draw() for _ in range(25)] == list(range(1, 26))
            assert sequence.take(30) == list(range(26, 56))
            assert sequence.take(0) == []
            assert next(sequence) == 56
            assert list(islice(sequence, 3)) == [57, 58, 59]

    @pytest.mark.parametrize(("start", "step"), [(0, 5), (100, -3), (-1, 1)])
    def test_start_and_step(self, start, step, some):
        stored(some, start=start, step=step, block=2)
        with some.transaction() as connection:
            assert connection.root.sequence.take(5) == [start + step * at for at in range(5)]
        fresh = Sequence(start, step)
        assert fresh.take(3) == [start + step * at for at in range(3)]

    @pytest.mark.parametrize("value", ["x", 1.0, None], ids=str)
    def test_what_is_no_whole_number(self, value):
        """It was stored, and drawing failed."""
        for kind, names in ((Sequence, ("start", "step", "block")), (GapFreeSequence, ("start", "step"))):
            for name in names:
                with pytest.raises(UsageError, match=f"{name} is a whole number, not {value!r}"):
                    kind(**{name: value})
        with pytest.raises(UsageError, match="count is a whole number"):
            Sequence().take(value)

    def test_what_makes_no_sense(self):
        for options in ({"step": 0}, {"block": 0}):
            with pytest.raises(UsageError):
                Sequence(**options)
        with pytest.raises(UsageError, match="step is not 0"):
            GapFreeSequence(step=0)
        with pytest.raises(UsageError, match="0 numbers or more, not -1"):
            Sequence().take(-1)

    def test_before_it_is_committed(self, some):
        """The numbers are part of the transaction that makes it; later ones follow them."""
        connection = opened(some)
        connection.root.sequence = sequence = Sequence(block=4)
        assert sequence.take(2) == [1, 2]
        connection.add(sequence)
        assert sequence.draw() == 3
        moment = connection.transaction_manager.savepoint()
        assert sequence.draw() == 4
        moment.rollback()
        assert sequence.draw() == 4
        commit(connection)
        assert sequence.take(3) == [5, 6, 7]
        with some.transaction() as other:
            assert other.root.sequence.take(2) == [8, 9]

    def test_nobody_conflicts(self, some):
        """Two transactions draw, and commit; a third one aborts, and its numbers are lost."""
        stored(some, block=2)
        first, second, third = opened(some), opened(some), opened(some)
        first.root.numbers = OOBTree()
        commit(first)
        second.sync(), third.sync()
        numbers = []
        for turn in range(3):
            for name, connection in (("first", first), ("second", second), ("third", third)):
                number = connection.root.sequence.draw()
                connection.root.numbers[name, turn] = number
                numbers.append(number)
                assert not connection.root.sequence._p_changed
            commit(first)
            abort(third)
            commit(second)
        assert len(set(numbers)) == len(numbers) == 9
        with some.transaction() as connection:
            assert len(connection.root.numbers) == 2 * 3

    def test_what_was_reserved_and_not_given_out_is_lost(self, databases):
        db = stored(databases("segmented-full"), block=10)
        with db.transaction() as connection:
            assert connection.root.sequence.draw() == 1
        again = objstore.open(db.getName())
        with again.transaction() as connection:
            assert connection.root.sequence.draw() == 11
        with db.transaction() as connection:
            assert connection.root.sequence.draw() == 2
        again.close()

    def test_several_sequences_and_databases(self, databases):
        one, other = stored(databases("memory-full")), stored(databases("memory-minimal"))
        with one.transaction() as connection:
            connection.root.second = Sequence(50)
        for db, name, expected in ((one, "sequence", 1), (one, "second", 50), (other, "sequence", 1)):
            with db.transaction() as connection:
                assert connection.root()[name].draw() == expected

    def test_after_the_cache_was_emptied(self, some):
        """Nothing of the block is kept in the object."""
        stored(some)
        with some.transaction() as connection:
            assert connection.root.sequence.draw() == 1
            connection.cacheMinimize()
            assert connection.root.sequence.draw() == 2

    def test_the_reservation_says_what_it_is(self, full):
        stored(full)
        with full.transaction() as connection:
            connection.root.sequence.draw()
        assert full.undoLog()[0]["description"] == "numbers of a sequence reserved"

    def test_read_only(self, databases):
        stored(databases("segmented-full")).close()
        db = databases("segmented-full", read_only=True)
        with db.transaction() as connection, pytest.raises(ReadOnlyError):
            connection.root.sequence.draw()

    def test_in_a_database_of_zodb(self):
        db = ZODB.DB(MappingStorage())
        with db.transaction() as connection:
            connection.root.sequence = Sequence()
            connection.root.gap_free = GapFreeSequence()
        with db.transaction() as connection:
            assert connection.root.gap_free.draw() == 1
            with pytest.raises(UsageError, match="a database of objstore"):
                connection.root.sequence.draw()
        db.close()

    def test_threads(self, some):
        stored(some, block=7)

        def work():
            numbers = []
            for _ in range(20):
                with some.transaction() as connection:
                    numbers += connection.root.sequence.take(3)
            return numbers

        results = in_threads(6, work)
        numbers = [number for each in results for number in each]
        assert sorted(numbers) == list(range(1, 6 * 60 + 1))
        assert all(each == sorted(each) for each in results)


class TestGapFree:
    def test_numbers_of_aborted_transactions_are_given_out_again(self, some):
        connection = opened(some)
        connection.root.gap_free = GapFreeSequence(10, 2)
        commit(connection)
        sequence = connection.root.gap_free
        assert [sequence.draw(), sequence.draw()] == [10, 12]
        abort(connection)
        assert sequence.draw() == 10
        commit(connection)
        assert sequence.draw() == 12

    def test_two_at_once_conflict(self, some):
        first, second = opened(some), opened(some)
        first.root.gap_free = GapFreeSequence()
        commit(first)
        second.sync()
        assert first.root.gap_free.draw() == second.root.gap_free.draw() == 1
        commit(first)
        with pytest.raises(ConflictError):
            commit(second)
        abort(second)
        assert second.root.gap_free.draw() == 2

    def test_threads(self, some):
        with some.transaction() as connection:
            connection.root.gap_free = GapFreeSequence()

        def take(connection):
            return connection.root.gap_free.draw()

        results = in_threads(4, lambda: [some.run(take, retries=1000) for _ in range(10)])
        assert sorted(number for each in results for number in each) == list(range(1, 41))
        assert all(each == sorted(each) for each in results)


class TestProcesses:
    @pytest.fixture
    def path(self, tmp_path):
        path = str(tmp_path / "store")
        with objstore.open(path) as db, db.transaction() as connection:
            connection.root.sequence = Sequence(block=5)
            connection.root.gap_free = GapFreeSequence()
            connection.root.taken = LOBTree()
        return path

    def test_no_number_twice(self, path):
        """Some of the processes are killed with what they have left, and others follow them."""
        numbers = []
        with Nursery() as nursery:
            for turn in range(2):
                siblings = [nursery.start(draw, path, 23) for _ in range(4)]
                for sibling in siblings:
                    assert sibling.receive() == "ready"
                for sibling in siblings:
                    sibling.send()
                for sibling in siblings:
                    numbers += sibling.receive()
                siblings[turn].kill()
                for sibling in siblings:
                    if sibling.status is None:
                        sibling.send()
                        assert sibling.wait() == 0
        assert len(numbers) == len(set(numbers)) == 2 * 4 * 23
        assert max(numbers) <= 2 * 4 * 25

    def test_no_number_twice_whoever_is_killed_when(self, path):
        """Each is killed in the middle of drawing, perhaps of reserving, and another takes its place."""
        numbers = []
        with Nursery() as nursery:
            siblings = [nursery.start(draw_until_killed, path) for _ in range(2)]
            for _ in range(3):
                siblings.append(nursery.start(draw_until_killed, path))
                for sibling in siblings:
                    numbers += [sibling.receive() for _ in range(6)]
                siblings.pop(0).kill()
        assert len(numbers) == len(set(numbers)) == 3 * 3 * 6

    def test_no_gap(self, path):
        with Nursery() as nursery:
            siblings = [nursery.start(draw_gap_free, path, 10) for _ in range(3)]
            for sibling in siblings:
                assert sibling.receive() == "ready"
            for sibling in siblings:
                sibling.send()
            numbers = [number for sibling in siblings for number in sibling.receive()]
        assert sorted(numbers) == list(range(1, 31))
        with objstore.open(path) as db, db.transaction() as connection:
            assert list(connection.root.taken) == sorted(numbers)

    def test_a_forked_child_has_a_block_of_its_own(self, path):
        with Nursery() as nursery:
            before, theirs, after = nursery.start(draw_in_child, path).receive()
        numbers = before + theirs + after
        assert len(numbers) == len(set(numbers)) == 13
        assert (before, after[:2]) == ([1, 2, 3], [4, 5])

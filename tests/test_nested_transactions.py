"""`DB.savepoint`: transactions within a transaction. Over every kind of database."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, suppress

import pytest
import transaction
from databases import commit, opened
from hypothesis import given, settings
from hypothesis import strategies as st
from persistent.mapping import PersistentMapping
from small_trees import SmallTree
from things import Thing
from transaction.interfaces import TransactionFailedError

import objstore
from objstore.errors import ClosedError, ConflictError, ReadOnlyError, SerializationError, UsageError
from objstore.upkeep.check import check

pytest_plugins = ["database_fixtures"]


@contextmanager
def given_up(savepoint):
    """Leave it with an exception, which must go on."""
    with pytest.raises(LookupError, match="something"), savepoint as moment:  # noqa: PT012
        yield moment
        raise LookupError("something")


def test_an_exception_takes_back_what_was_changed_inside(db):
    connection = db.open()
    root = connection.root()
    root["thing"] = thing = Thing(n=1)
    root["tree"] = SmallTree({number: number for number in range(20)})
    transaction.commit()
    thing.n = 2
    with given_up(db.savepoint()):
        thing.n = 3
        thing.more = Thing()
        root["new"] = Thing()
        del root["tree"][5]
        root["tree"].update(dict.fromkeys(range(100, 140), 0))
    assert thing.n == 2
    assert not hasattr(thing, "more")
    assert "new" not in root
    assert list(root["tree"].items()) == [(number, number) for number in range(20)]
    transaction.commit()
    fresh = opened(db)
    assert fresh.root.thing.n == 2
    assert list(fresh.root.tree) == list(range(20))


def test_within_a_block_it_is_that_of_the_block(some):
    """It was the thread's, in which nothing had happened, so an exception took back nothing."""
    with some.transaction() as connection:
        connection.root.a = 1
        with given_up(some.savepoint()):
            connection.root.a = 2
            with some.transaction() as inner:
                with given_up(some.savepoint()):
                    inner.root.inner = 1
                assert "inner" not in inner.root()
            with given_up(some.savepoint()):
                connection.root.a = 3
            assert connection.root.a == 2
        assert connection.root.a == 1

    def change(connection):
        with given_up(some.savepoint()):
            connection.root.a = 4
        connection.root.b = connection.root.a

    some.run(change)
    fresh = opened(some)
    assert (fresh.root.a, fresh.root.b) == (1, 1)


def test_an_undo_within_a_block_is_its_transactions(full):
    """It was the thread's, which nobody committed."""
    with full.transaction() as connection:
        connection.root.thing = Thing(n=1)
    with full.transaction() as connection:
        connection.root.thing.n = 2
    last = full.undoLog(0, 1)[0]["id"]
    with full.transaction():
        full.undo(last)
    assert opened(full).root.thing.n == 1


def test_after_a_block_it_is_the_threads_again(some):
    connection = some.open()
    with some.transaction():
        pass
    with given_up(some.savepoint()):
        connection.root.a = 1
    assert "a" not in connection.root()


def test_each_task_has_its_own_blocks(some):
    async def change(name, others):
        with some.transaction() as connection:
            await others.wait()
            with given_up(some.savepoint()):
                connection.root()[name] = 1
                await asyncio.sleep(0)
            connection.root()[f"{name} stays"] = 1

    async def both():
        others = asyncio.Barrier(2)
        await asyncio.gather(change("a", others), change("b", others), return_exceptions=True)

    asyncio.run(both())
    kept = set(opened(some).root())
    assert kept in ({"a stays"}, {"b stays"})  # they changed the same root, so one of them had a conflict


def test_a_task_that_outlives_its_block_has_the_threads(some):
    connection = some.open()

    async def later(begun):
        await begun.wait()
        with given_up(some.savepoint()):
            connection.root.a = 1

    async def main():
        begun = asyncio.Event()
        with some.transaction():
            task = asyncio.create_task(later(begun))
            await asyncio.sleep(0)
        begun.set()
        await task

    asyncio.run(main())
    assert "a" not in connection.root()


def test_without_one_the_changes_stay(some):
    connection = some.open()
    with some.savepoint():
        connection.root.a = 1
    assert connection.root.a == 1
    transaction.abort()
    assert "a" not in connection.root()


def test_nested(some):
    with some.transaction() as connection:
        root = connection.root()
        with some.savepoint(connection):
            root["a"] = 1
            with given_up(some.savepoint(connection)):
                root["b"] = 2
                with some.savepoint(connection):
                    root["c"] = 3
                with given_up(some.savepoint(connection)):
                    root["d"] = 4
                assert sorted(root) == ["a", "b", "c"]
            assert sorted(root) == ["a"]
            root["e"] = 5
    with some.transaction() as connection:
        assert sorted(connection.root()) == ["a", "e"]


def test_the_outer_takes_back_what_the_inner_kept(some):
    with some.transaction() as connection:
        with given_up(some.savepoint(connection)), some.savepoint(connection):
            connection.root.a = 1
        assert "a" not in connection.root()


def test_rolled_back_by_hand(some):
    with some.transaction() as connection:
        with some.savepoint(connection) as moment:
            connection.root.a = 1
            moment.rollback()
            assert "a" not in connection.root()
            connection.root.b = 2
        assert connection.root.b == 2
        with given_up(some.savepoint(connection)) as outer:
            connection.root.c = 3
            with suppress(ZeroDivisionError), some.savepoint(connection):
                outer.rollback()
                raise ZeroDivisionError
        assert sorted(connection.root()) == ["b"]


def test_the_manager_is_that_of_the_connection(some):
    """What the thread's own transaction has changed is left alone."""
    mine = some.open()
    mine.root.mine = 1
    other = opened(some)
    with given_up(some.savepoint(other)):
        other.root.other = 1
        mine.root.mine = 2
    assert mine.root.mine == 2
    assert "other" not in other.root()


def test_a_transaction_that_ends_inside(some):
    """The exception goes on as it is."""
    connection = some.open()
    connection.root.a = 1
    for end in (transaction.abort, transaction.commit):
        with given_up(some.savepoint()):
            connection.root.b = 2
            end()
    assert connection.root.b == 2
    explicit = transaction.TransactionManager(explicit=True)
    other = some.open(explicit)
    explicit.begin()
    with given_up(some.savepoint(other)):
        explicit.abort()


def test_objects_that_cannot_be_stored(some):
    """Inside they are taken back; where a savepoint has to write them the transaction fails, as a commit would."""
    connection = some.open()
    connection.root.a = 1
    with given_up(some.savepoint()):
        connection.root.bad = lambda: None
    assert sorted(connection.root()) == ["a"]
    connection.root.bad = lambda: None
    with pytest.raises(SerializationError), some.savepoint():
        pytest.fail("the savepoint cannot be made")
    with pytest.raises(TransactionFailedError):
        transaction.commit()
    transaction.abort()
    assert sorted(connection.root()) == []
    connection.root.a = 2
    transaction.commit()


def test_a_conflict_makes_run_try_the_whole_again(some):
    with some.transaction() as connection:
        connection.root.thing = Thing(n=0, log=[])
    attempts = []

    def change(connection):
        attempts.append(connection.root.thing.n)
        with some.savepoint(connection):
            connection.root.thing.n += 1
            if len(attempts) == 1:
                with some.transaction() as other:
                    other.root.thing.n = 10

    some.run(change, sleep=lambda _: None)
    assert attempts == [0, 10]
    with some.transaction() as connection:
        assert connection.root.thing.n == 11


def test_a_conflict_raised_inside_goes_on(some):
    attempts = []

    def change(connection):
        attempts.append(1)
        with some.savepoint(connection):
            connection.root.n = len(attempts)
            if len(attempts) < 3:
                raise ConflictError(b"\0" * 8, b"\0" * 8, b"\0" * 8)

    some.run(change, sleep=lambda _: None)
    assert len(attempts) == 3
    with some.transaction() as connection:
        assert connection.root.n == 3


def test_the_connection_must_fit(some):
    connection = opened(some)
    connection.close()
    with pytest.raises(ClosedError, match="the connection is closed"), some.savepoint(connection):
        pass
    with objstore.memory() as other:
        foreign = opened(other)
        with pytest.raises(UsageError, match="belongs to another database"), some.savepoint(foreign):
            pass
    with pytest.raises(ClosedError), other.savepoint():
        pass


def test_a_connection_to_the_past_can_have_one(full):
    with full.transaction() as connection:
        connection.root.a = 1
    past = full.open(transaction.TransactionManager(), at=full.lastTransaction())
    with full.savepoint(past):
        assert past.root.a == 1
    with pytest.raises(ReadOnlyError), full.savepoint(past):
        past.root.a = 2
    commit(past)


# --- blocks within blocks, by chance -----------------------------------------------------------------

NAMES = st.sampled_from("abc")
CHANGES = st.one_of(
    st.tuples(st.just("set"), NAMES, st.integers(0, 99)),
    st.tuples(st.just("new"), NAMES, st.integers(0, 99)),
    st.tuples(st.just("drop"), NAMES),
    st.tuples(st.just("fill"), st.integers(0, 30), st.integers(0, 30)),
    st.tuples(st.just("clear"), st.integers(0, 30), st.integers(0, 30)),
    st.tuples(st.just("forget")),
    st.tuples(st.just("look")),
)
PROGRAMS = st.recursive(
    st.lists(CHANGES, max_size=5),
    lambda inner: st.lists(CHANGES | st.tuples(st.just("block"), inner, st.booleans()), max_size=6),
    max_leaves=12,
)


def seen(root):
    """What a database shows, as plain data."""
    things = {name: thing.n for name, thing in root["things"].items()}
    return things, sorted(root["tree"].items())


def follow(db, connection, program, model):
    """Make the changes of a program, and blocks of further ones, some of which fail; what the model is then."""
    things, tree = model
    root = connection.root()
    for verb, *arguments in program:
        match verb:
            case "set" if arguments[0] in things:
                root["things"][arguments[0]].n = things[arguments[0]] = arguments[1]
            case "new":
                root["things"][arguments[0]] = Thing(n=arguments[1])
                things[arguments[0]] = arguments[1]
            case "drop" if things.pop(arguments[0], None) is not None:
                del root["things"][arguments[0]]
            case "fill":
                root["tree"].update({key: key * 2 for key in range(*arguments)})
                tree.update({key: key * 2 for key in range(*arguments)})
            case "clear":
                for key in set(range(*arguments)) & set(tree):
                    del root["tree"][key], tree[key]
            case "forget":
                connection.cacheMinimize()
            case "block":
                inner, fails = arguments
                before = dict(things), dict(tree)
                with given_up(db.savepoint(connection)) if fails else db.savepoint(connection):
                    things, tree = follow(db, connection, inner, (things, tree))
                things, tree = before if fails else (things, tree)
        assert seen(root) == (things, sorted(tree.items()))
    return things, tree


@given(PROGRAMS)
@settings(max_examples=60)
def test_any_blocks(program):
    with objstore.memory() as db:
        with db.transaction() as connection:
            connection.root.things, connection.root.tree = PersistentMapping(), SmallTree()
        with db.transaction() as connection:
            model = follow(db, connection, [*program, ("look",)], ({}, {}))
        with db.transaction() as connection:
            assert seen(connection.root()) == (model[0], sorted(model[1].items()))
            connection.root.tree._check()
        assert {finding.kind for finding in check(db.store)} <= {"unreachable"}

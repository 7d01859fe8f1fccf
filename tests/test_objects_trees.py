"""BTrees as they are written: a part with one new leaf is not in the store twice; undo leaves trees whole."""

from __future__ import annotations

from contextlib import suppress

import pytest
import transaction
from hypothesis import given
from hypothesis import strategies as st
from persistent import Persistent
from small_trees import KINDS, SmallTree, fill, take_away

import objstore
from objstore.errors import ReadConflictError, UndoError

NUMBERS = st.lists(st.integers(0, 60), max_size=20)


def committed(connection, added, removed):
    """Change the tree of a connection, and read it again as it is stored; the keys that it is to have."""
    tree = connection.root.tree
    fill(tree, added)
    for key in sorted({*removed} & {*tree.keys()}):
        take_away(tree, key)
    wanted = list(tree.keys())
    connection.transaction_manager.commit()
    connection.cacheMinimize()
    return wanted


def assert_whole(tree, wanted):
    tree._check()
    assert list(tree.keys()) == wanted
    for low in range(0, 61, 5):
        for high in range(low, 61, 5):
            assert list(tree.keys(low, high)) == [key for key in wanted if low <= key <= high]


def opened(kind):
    connection = objstore.memory().open(transaction.TransactionManager())
    connection.root.tree = kind()
    connection.transaction_manager.commit()
    return connection


@pytest.mark.parametrize("with_savepoint", [False, True])
def test_an_inner_node_with_one_new_leaf(with_savepoint):
    """BTrees write the only leaf of a node within it, if it has no oid yet. The leaf before it, written later,
    gave it one: it was there twice, and what was put into one was not found in the other.
    """
    connection = opened(SmallTree)
    committed(connection, [7, 30, 1, 51, 51, 47, 9, 33, 31, 26, 1, 44, 42, 32], [1])
    tree = connection.root.tree
    fill(tree, [6, 47, 39, 17, 9, 0, 14, 31])
    for key in (17, 30, 31, 32, 51):
        take_away(tree, key)
    if with_savepoint:
        connection.transaction_manager.savepoint()
    wanted = committed(connection, [], [])
    assert_whole(connection.root.tree, wanted)
    assert_whole(connection.root.tree, committed(connection, [15, 16, 27, 28], []))


@pytest.mark.parametrize("kind", KINDS)
@given(changes=st.lists(st.tuples(NUMBERS, NUMBERS), max_size=4))
def test_what_is_loaded_is_what_was_written(kind, changes):
    connection = opened(kind)
    for added, removed in changes:
        wanted = committed(connection, added, removed)
        assert_whole(connection.root.tree, wanted)
    connection.db().close()


# --- undo --------------------------------------------------------------------------------------------


def newest(connection):
    return connection.db().undoLog(0, 1)[0]["id"]


def undo(connection, *identities):
    connection.db().undoMultiple(identities, connection.transaction_manager.get())
    try:
        connection.transaction_manager.commit()
    except UndoError:
        connection.transaction_manager.abort()
        raise
    connection.cacheMinimize()


@pytest.mark.parametrize("kind", KINDS)
def test_an_undo_after_which_later_keys_would_not_be_found_is_refused(kind):
    """The third leaf begins with 4. Without that, it began with 5, and what was put in before went elsewhere."""
    connection = opened(kind)
    committed(connection, range(0, 20, 2), [])
    separators = connection.root.tree.__getstate__()[0][1::2]
    wanted = committed(connection, [], separators[:1])
    taken = newest(connection)
    committed(connection, [separators[0] + 1], [])
    put = newest(connection)
    with pytest.raises(UndoError, match="would not be found any more"):
        undo(connection, taken)
    undo(connection, taken, put)
    assert_whole(connection.root.tree, sorted({*wanted, separators[0]}))


def test_an_undo_may_follow_changes_of_other_leaves():
    connection = opened(SmallTree)
    committed(connection, range(0, 40, 2), [])
    separators = connection.root.tree.__getstate__()[0][1::2]
    committed(connection, [], separators[:1])
    taken = newest(connection)
    wanted = committed(connection, [separators[0] + 3, 41], [])
    undo(connection, taken)
    assert_whole(connection.root.tree, sorted({*wanted, separators[0]}))


class Meanwhile:
    """A data manager that does something else once the others have written what they commit."""

    def __init__(self, does):
        self.commit = lambda _transaction: does()

    def sortKey(self):
        return "~"

    def nothing(self, _transaction):
        """Nothing is to be done."""

    abort = tpc_begin = tpc_vote = tpc_finish = tpc_abort = nothing


def test_a_key_that_comes_while_an_undo_commits():
    connection = opened(SmallTree)
    wanted = committed(connection, range(0, 20, 2), [])
    [first, *_] = connection.root.tree.__getstate__()[0][1::2]
    committed(connection, [], [first])
    other = connection.db().open(transaction.TransactionManager())
    connection.db().undo(newest(connection), connection.transaction_manager.get())
    connection.transaction_manager.get().join(Meanwhile(lambda: committed(other, [first + 1], [])))
    with pytest.raises(ReadConflictError):
        connection.transaction_manager.commit()
    connection.transaction_manager.abort()
    assert_whole(connection.root.tree, sorted({*wanted, first + 1} - {first}))


def test_a_key_that_was_put_before_an_undo_and_is_committed_after_it():
    """BTrees rely on the nodes on the way to the leaf that they change."""
    connection = opened(SmallTree)
    wanted = committed(connection, range(0, 20, 2), [])
    [first, *_] = connection.root.tree.__getstate__()[0][1::2]
    committed(connection, [], [first])
    other = connection.db().open(transaction.TransactionManager())
    fill(other.root.tree, [first + 1])
    undo(connection, newest(connection))
    with pytest.raises(ReadConflictError):
        other.transaction_manager.commit()
    other.transaction_manager.abort()
    assert_whole(other.root.tree, wanted)


@pytest.mark.parametrize("kind", KINDS)
@given(changes=st.lists(st.tuples(NUMBERS, NUMBERS, st.lists(st.integers(0, 5), max_size=2)), max_size=8))
def test_a_tree_is_whole_after_whatever_was_undone(kind, changes):
    connection = opened(kind)
    committed(connection, range(0, 60, 3), [])
    made = connection.db().lastTransaction()
    for added, removed, undone in changes:
        committed(connection, added[:4], removed[:4])
        log = [entry["id"] for entry in connection.db().undoLog(0, 6) if entry["tid"] > made]
        with suppress(UndoError):
            undo(connection, *{log[at % len(log)] for at in undone if log})
        assert_whole(connection.root.tree, sorted(connection.root.tree.keys()))
        assert all(key in connection.root.tree for key in connection.root.tree)
    connection.db().close()


# --- what is no tree ---------------------------------------------------------------------------------


class Obliging(Persistent):
    """Has every attribute that it is asked for."""

    def __getattr__(self, name):
        if name.startswith(("_p_", "__")):
            raise AttributeError(name)
        return f"the {name}"


def test_an_object_that_has_every_attribute_is_no_tree():
    """It was taken for one, and could not be committed."""
    connection = opened(SmallTree)
    connection.root.obliging = Obliging()
    connection.transaction_manager.commit()
    assert connection.root.obliging.anything == "the anything"

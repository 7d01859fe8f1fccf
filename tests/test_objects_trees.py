"""BTrees as they are written: that a part with one new leaf is not in the store twice."""

from __future__ import annotations

import pytest
import transaction
from hypothesis import given
from hypothesis import strategies as st
from persistent import Persistent
from small_trees import KINDS, SmallTree, fill, take_away

import objstore

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

"""BTrees with nodes so small that a handful of keys makes them deep."""

from __future__ import annotations

from BTrees.LOBTree import LOBTree
from BTrees.OOBTree import OOBTree, OOBTreePy, OOTreeSet, OOTreeSetPy


class SmallTree(OOBTree):
    max_leaf_size = 3
    max_internal_size = 3


class SmallSet(OOTreeSet):
    max_leaf_size = 3
    max_internal_size = 3


class SmallNumbers(LOBTree):
    max_leaf_size = 3
    max_internal_size = 3


class SmallPythonTree(OOBTreePy):
    max_leaf_size = 3
    max_internal_size = 3


class SmallPythonSet(OOTreeSetPy):
    max_leaf_size = 3
    max_internal_size = 3


KINDS_IN_C = [SmallTree, SmallSet, SmallNumbers]
KINDS = [*KINDS_IN_C, SmallPythonTree, SmallPythonSet]


def fill(tree, keys):
    """Add keys to a tree or a set; as the value of each, its text."""
    for key in keys:
        if hasattr(tree, "values"):
            tree[key] = repr(key)
        else:
            tree.add(key)
    return tree


def take_away(tree, key):
    """Take a key out of a tree or a set."""
    tree.pop(key) if hasattr(tree, "values") else tree.remove(key)

"""The trees of collections: BTrees whose inner nodes are smaller than usual.

A transaction that adds one member puts a key into a leaf of each index, and where a leaf is split, a record for
the node above it is written too. With hundreds of children in it that would be most of what is written; and two
transactions that split leaves below one node conflict, the more rarely the smaller it is. Looking up goes through
one more level.
"""

from __future__ import annotations

from BTrees.LOBTree import LOBTree
from BTrees.OLBTree import OLBTree
from BTrees.OOBTree import OOTreeSet

_CHILDREN = 60


class IdTree(LOBTree):
    """From ids to objects, or to what these are indexed under."""

    __slots__ = ()
    max_internal_size = _CHILDREN


class KeyTree(OLBTree):
    """From the keys of a unique index to ids."""

    __slots__ = ()
    max_internal_size = _CHILDREN


class KeySet(OOTreeSet):
    """The keys of an index, each with an id at its end."""

    __slots__ = ()
    max_internal_size = _CHILDREN

"""Floor 6, collections: containers made of BTrees and persistent objects. `import objstore` does not load it."""

from objstore.collections.collection import Collection
from objstore.collections.conditions import (
    Condition,
    above,
    any_of,
    at_least,
    at_most,
    begins_with,
    below,
    between,
    has,
    matches,
    where,
)
from objstore.collections.cursors import Cursor, cursor
from objstore.collections.found import Found
from objstore.collections.indexcursors import IndexCursor
from objstore.collections.indexes import Index, computed
from objstore.collections.multicursors import MultiMapCursor
from objstore.collections.multimap import MultiMap
from objstore.collections.sequences import GapFreeSequence, Sequence
from objstore.collections.shapes import Estimate
from objstore.collections.verifying import Misfit

__all__ = [
    "Collection",
    "Condition",
    "Cursor",
    "Estimate",
    "Found",
    "GapFreeSequence",
    "Index",
    "IndexCursor",
    "Misfit",
    "MultiMap",
    "MultiMapCursor",
    "Sequence",
    "above",
    "any_of",
    "at_least",
    "at_most",
    "begins_with",
    "below",
    "between",
    "computed",
    "cursor",
    "has",
    "matches",
    "where",
]

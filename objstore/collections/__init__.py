"""Floor 6, collections: what stands on BTrees. Import from here; `import objstore` does not load it."""

from objstore.collections.cursors import Cursor, cursor
from objstore.collections.multicursors import MultiMapCursor
from objstore.collections.multimap import MultiMap
from objstore.collections.shapes import Estimate

__all__ = ["Cursor", "Estimate", "MultiMap", "MultiMapCursor", "cursor"]

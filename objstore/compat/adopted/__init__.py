"""ZODB's storages under our database: FileStorage, ZEO, RelStorage, and any other that zodburi can name."""

from __future__ import annotations

from objstore.compat.adopted.opening import adopted_options, open_adopted, open_storage
from objstore.compat.adopted.store import AdoptedStore

__all__ = ["AdoptedStore", "adopted_options", "open_adopted", "open_storage"]

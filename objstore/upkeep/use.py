"""Whether what is met in a store's directory may be somebody's work."""

from __future__ import annotations

from objstore.engine.store import DirectoryStore


class Use:
    """Notices that a store is written to."""

    def __init__(self, store: DirectoryStore) -> None:
        self._store = store
        self._noticed = store.in_use

    def noticed(self) -> bool:
        """Whether the store is open for writing anywhere, or was at one of the looks before."""
        self._noticed = self._noticed or self._store.in_use
        return self._noticed

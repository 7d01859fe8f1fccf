"""Wrappers around storages, for tests of what ZODB does with each kind."""

from __future__ import annotations


class Plain:
    """Hands everything down, but provides nothing: ZODB then keeps snapshots by being told what is invalid."""

    def __init__(self, storage):
        self._storage = storage

    def __getattr__(self, name):
        return getattr(self._storage, name)

    def __len__(self):
        return len(self._storage)

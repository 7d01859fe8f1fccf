"""Fixtures for tests of the engine that go over several kinds of stores.

They are made in the module that wants them, `store = stores_of(COMBINATIONS, open_on)`, and not by a plugin: its
fixtures would be every module's, and `full` is already another plugin's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest

from objstore.contracts import Filesystem, Format, History
from objstore.engine.store import DirectoryStore


def stores_of(kinds: Sequence[tuple[History, Format]], opener: Callable[..., DirectoryStore]):
    """A fixture: a store of each kind, over the module's fixture `filesystem`, closed at the end."""

    @pytest.fixture(params=kinds, ids="-".join)
    def store(request: pytest.FixtureRequest, filesystem: Filesystem) -> Iterator[DirectoryStore]:
        store = opener(filesystem, *request.param)
        yield store
        store.close()

    return store

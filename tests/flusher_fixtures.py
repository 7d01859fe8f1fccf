"""Fixtures for tests of the flusher: a plugin, `pytest_plugins = ["flusher_fixtures"]`."""

from __future__ import annotations

import pytest
from flushing import COMBINATIONS, Opener, Troubled


@pytest.fixture
def filesystem():
    return Troubled()


@pytest.fixture(params=COMBINATIONS, ids="-".join)
def opened(request, filesystem):
    """Opens stores of each kind, over a filesystem that is sound again when they are closed."""
    opener = Opener(filesystem, *request.param)
    yield opener
    filesystem.heal()
    filesystem.gate.set()
    opener.close()

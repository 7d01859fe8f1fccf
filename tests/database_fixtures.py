"""Fixtures for tests of the object layer: a plugin, `pytest_plugins = ["database_fixtures"]`."""

from __future__ import annotations

import pytest
import transaction
from databases import ALL, FEW, FULL, Databases


@pytest.fixture
def databases(tmp_path):
    databases = Databases(tmp_path)
    yield databases
    transaction.abort()
    databases.close()


@pytest.fixture(params=ALL)
def db(request, databases):
    """A database of each kind."""
    return databases(request.param)


@pytest.fixture(params=FULL)
def full(request, databases):
    """A database of each kind that keeps its history."""
    return databases(request.param)


@pytest.fixture(params=FEW)
def some(request, databases):
    """A database, for what does not depend on the store."""
    return databases(request.param)

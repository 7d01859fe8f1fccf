"""`upkeep.current`: every object once, as it is in one snapshot, whatever is flushed meanwhile."""

from __future__ import annotations

import pytest
from databases import FULL, MINIMAL
from persistent.mapping import PersistentMapping
from things import Thing

from objstore.upkeep.current import current_records

pytest_plugins = ["database_fixtures"]


def silent(*_):
    """Tell nobody."""


@pytest.fixture(params=[kind for kind in FULL + MINIMAL if "model" not in kind])
def db(request, databases):
    return databases(request.param, background=False)


def test_what_is_flushed_meanwhile_is_met_once(db):
    with db.transaction() as connection:
        for number in range(5):
            connection.root()[f"old {number}"] = Thing(n=number)
    db.store.flush()
    with db.transaction() as connection:
        connection.root()["old 0"].n = 10
        connection.root()["new"] = Thing(n=11)
        connection.transaction_manager.savepoint()  # names the new one
        expected = {each._p_oid for each in (connection.root(), *connection.root().values())}
    records = current_records(db.store, silent)
    met = [next(records)]
    with db.transaction() as connection:
        connection.root()["later"] = Thing(n=12)
        connection.root()["old 1"].n = 13
    if db.store.history_mode == "full":
        db.store.flush()
    met += records
    oids = [record.oid for record in met]
    assert len(oids) == len(set(oids))
    assert set(oids) == expected


def test_one_snapshot(db):
    """Serials are those of before, though another transaction has committed since."""
    with db.transaction() as connection:
        connection.root()["a"] = PersistentMapping()
    last = db.lastTransaction()
    records = current_records(db.store, silent)
    met = [next(records)]
    with db.transaction() as connection:
        connection.root()["a"]["n"] = connection.root()["b"] = 1
    met += records
    assert {record.serial for record in met} == {last}

"""Collections in many threads, in several processes, in every kind of database, and under ZODB."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import pytest
import transaction
from databases import commit, opened
from people import Person, collection, fill, misfits, names
from sibling_people import add_people, add_until_killed
from siblings import Nursery

import objstore
from objstore.collections import between, has, where

pytest_plugins = ["database_fixtures"]


def test_every_kind_of_database(db):
    connection = opened(db)
    people = connection.root.people = collection()
    fill(people, 40)
    commit(connection)
    people["00007"].city = "Lima"
    del people["00008"]
    commit(connection)
    connection.close()
    with db.transaction() as connection:
        people = connection.root.people
        connection.cacheMinimize()
        assert names(people.find(city="Lima")) == ["00007"]
        assert names(people.find(where(city="Rome") & ~where(tags=has("b")), age=between(3, 30))) == [
            person.name
            for person in people.values()
            if person.city == "Rome" and "b" not in person.tags and 3 <= person.age <= 30
        ]
        assert misfits(people) == []


def test_many_threads(tmp_path):
    """They add, change and remove neighbours, in every index; whoever meets another begins again."""
    threads, rounds = 6, 25
    with objstore.open(tmp_path / "store", flush_on_close=False) as db:
        with db.transaction() as connection:
            connection.root.people = collection()
            fill(connection.root.people, 60)

        def work(thread):
            for step in range(rounds):
                number = f"{step:02}{thread}"

                def change(connection, number=number, step=step):
                    people = connection.root.people
                    people.add(Person(name=f"z{number}", city="Zug", age=99, tags=["z"], email=f"z{number}"))
                    people[f"{step % 10 * 6 + thread:05}"].city = f"city {step}"
                    if step % 3 == 2:
                        del people[f"z{step - 1:02}{thread}"]

                db.run(change, retries=1000)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(threads)))
        with db.transaction() as connection:
            people = connection.root.people
            removed = threads * (rounds // 3)
            assert people.count(city="Zug", tags=has("z")) == threads * rounds - removed
            assert len(people) == 60 + threads * rounds - removed
            assert misfits(people) == []


def test_indexes_come_and_go_while_others_work(tmp_path):
    """Whatever meets whatever: in the end every index has every member."""
    with objstore.open(tmp_path / "store", flush_on_close=False) as db:
        with db.transaction() as connection:
            connection.root.people = collection()
            fill(connection.root.people, 40)

        def work(thread):
            for step in range(15):

                def change(connection, step=step):
                    people = connection.root.people
                    people.add(Person(name=f"z{step:02}{thread}", nick=f"n{step % 3}", city="Zug"))
                    people[f"{thread * 10 + step % 10:05}"].nick = f"n{step % 2}"  # which is indexed at times

                db.run(change, retries=1000)

        def renew():
            for step in range(6):

                def change(connection, step=step):
                    people = connection.root.people
                    if step == 4:
                        people.rebuild()
                    elif "nick" in people.indexes:
                        people.drop_index("nick")
                    else:
                        people.add_index("nick", "nick", batch=20)

                db.run(change, retries=1000)

        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(renew), *(pool.submit(work, thread) for thread in range(3))]:
                done.result()
        with db.transaction() as connection:
            people = connection.root.people
            assert len(people) == 40 + 3 * 15
            assert misfits(people) == []
            if "nick" not in people.indexes:
                people.add_index("nick", "nick")
            assert people.count(nick="n2", scan=False) == 3 * 5


def test_several_processes(tmp_path):
    path, processes, count = str(tmp_path / "store"), 3, 15
    with objstore.open(path, flush_on_close=False) as db, db.transaction() as connection:
        connection.root.people = collection()
        fill(connection.root.people, 20)
    with Nursery() as nursery:
        siblings = [nursery.start(add_people, path, number, count) for number in range(processes)]
        assert [sibling.receive() for sibling in siblings] == ["ready"] * processes
        for sibling in siblings:
            sibling.send("go")
        assert [sibling.receive() for sibling in siblings] == ["done"] * processes
    with objstore.open(path) as db, db.transaction() as connection:
        people = connection.root.people
        assert people.count(city="Zug") == processes * count
        assert names(people.find(tags=has("z"))) == sorted(
            f"z{step:02}{number}" for step in range(count) for number in range(processes)
        )
        assert len(people) == 20 + processes * count
        assert misfits(people) == []


@pytest.mark.parametrize("steps", [1, 30])
def test_a_process_that_is_killed_leaves_what_fits(tmp_path, steps):
    path = str(tmp_path / "store")
    with objstore.open(path, flush_on_close=False) as db, db.transaction() as connection:
        connection.root.people = collection()
    with Nursery() as nursery:
        sibling = nursery.start(add_until_killed, path)
        done = 0
        while done < steps:
            done = sibling.receive()
        sibling.kill()
    with objstore.open(path, create=False) as db, db.transaction() as connection:
        people = connection.root.people
        assert misfits(people) == []
        assert people.count(tags=has("z")) == len(people) >= steps // 2
        assert people.find(city="moved", order="name").exists()


# --- ZODB --------------------------------------------------------------------------------------------


@pytest.fixture
def exported():
    """An export of a collection of 50 people, with dropped and partial indexes."""
    with objstore.memory() as db, db.transaction() as connection:
        people = connection.root.people = collection()
        fill(people, 50)
        people.drop_index("age")
        people.add_index("romans", people.indexes["email"])
        connection.transaction_manager.commit()
        people["00007"].city = "Lima"
        connection.transaction_manager.commit()
        file = connection.exportFile(people._p_oid, io.BytesIO())
        return file.getvalue()


def is_as_it_was(people):
    assert len(people) == 50
    assert names(people.find(city="Lima")) == ["00007"]
    assert people.one(email="9@example.com").name == "00009"
    assert people["00011"].name == "00011"
    assert names(people.find(where(city="Rome"), tags=has("b"))) == [
        person.name for person in people.values() if person.city == "Rome" and "b" in person.tags
    ]
    assert people.find(initial="0").count() == 50
    assert misfits(people) == []


def test_zodb_finds_in_what_was_exported(exported):
    zodb = pytest.importorskip("ZODB")
    mapping = pytest.importorskip("ZODB.MappingStorage")
    db = zodb.DB(mapping.MappingStorage())
    manager = transaction.TransactionManager()
    connection = db.open(manager)
    # Its oids are others then.
    connection.root.before = [Person(name=str(number)) for number in range(30)]
    manager.commit()
    people = connection.root.people = connection.importFile(io.BytesIO(exported))
    manager.commit()
    connection.cacheMinimize()
    is_as_it_was(people)

    people.add(Person(name="new", city="Bonn"))
    people["00003"].city = "Bonn"
    people.reindex(people["00003"])
    people.remove(people["00002"])
    manager.commit()
    again = connection.exportFile(people._p_oid, io.BytesIO()).getvalue()
    connection.close()
    db.close()

    with objstore.memory() as ours, ours.transaction() as connection:
        people = connection.root.people = connection.importFile(io.BytesIO(again))
        assert names(people.find(city="Bonn")) == ["00003", "new"]
        assert "00002" not in people
        people["new"].city = "Kiel"
        connection.transaction_manager.commit()
        assert names(people.find(city="Kiel")) == ["new"]
        assert misfits(people) == []


def test_what_is_imported_twice_is_two_collections(exported):
    with objstore.memory() as db, db.transaction() as connection:
        first = connection.root.first = connection.importFile(io.BytesIO(exported))
        second = connection.root.second = connection.importFile(io.BytesIO(exported))
        connection.transaction_manager.commit()
        is_as_it_was(first)
        is_as_it_was(second)
        first["00007"].city = "Bonn"
        for number in range(50):
            first.add(Person(name=f"new{number}", city="Bonn"))
        # A member of one may join the other, though both know the same ids.
        moved = second["00008"]
        moved.name, moved.email = "moved", "moved"
        first.add(moved)
        connection.transaction_manager.commit()
        assert first.count(city="Bonn") == 51
        assert first["moved"] is second["moved"]
        assert (len(first), len(second)) == (101, 50)
        assert misfits(first) == misfits(second) == []

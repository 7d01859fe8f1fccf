"""Export and import of subgraphs."""

from __future__ import annotations

import io
from contextlib import suppress

import pytest
from BTrees.check import check
from BTrees.OOBTree import OOBTree
from databases import abort, commit, opened
from hypothesis import given, settings
from hypothesis import strategies as st
from persistent.wref import WeakRef
from things import Keyed, Thing

from objstore.errors import POSKeyError, ReadOnlyError, SerializationError
from objstore.ids import ROOT, oid_from
from objstore.objects.blobs import OutsideFiles
from objstore.objects.exchange import END, Importer
from objstore.objects.savepoints import SavepointStore

pytest_plugins = ["database_fixtures"]


def exported(connection, obj):
    file = io.BytesIO()
    assert connection.exportFile(obj._p_oid, file) is file
    file.seek(0)
    return file


@pytest.fixture
def source(databases):
    db = databases("model-full")
    with db.transaction() as connection:
        connection.root.graph = graph = Thing(name="graph")
        graph.tree = OOBTree({number: Thing(n=number) for number in range(100)})
        graph.keyed = Keyed("k")
        graph.again = [graph.keyed, graph]
        graph.weak = WeakRef(graph.keyed)
        graph.oid_like = b"\x00" * 8
        connection.root.outside = Thing()
    return opened(db)


class TestRoundTrip:
    def test_everything_arrives(self, db, source):
        file = exported(source, source.root.graph)
        connection = opened(db)
        connection.root.graph = graph = connection.importFile(file)
        commit(connection)
        graph._p_activate()
        assert graph._p_serial == db.lastTransaction()
        fresh = opened(db)
        fresh.cacheMinimize()
        graph = fresh.root.graph
        assert (graph.name, graph.oid_like) == ("graph", bytes(8))
        assert [thing.n for thing in graph.tree.values()] == list(range(100))
        check(graph.tree)
        assert graph.again == [graph.keyed, graph]
        assert graph.keyed.key == "k"
        assert graph.weak() is graph.keyed
        assert sorted(fresh.root()) == ["graph"]

    def test_into_the_same_database_twice(self, source):
        """RelStorage#283: duplicate oids after an import. Each import gets new ones."""
        file = exported(source, source.root.graph)
        for name in ("first", "second"):
            file.seek(0)
            source.root()[name] = source.importFile(file)
            source.transaction_manager.savepoint()
        commit(source)
        graphs = [source.root.graph, source.root.first, source.root.second]
        oids = [
            thing._p_oid for graph in graphs for thing in (graph, graph.tree, graph.keyed, *graph.tree.values())
        ]
        assert len(oids) == len(set(oids)) == 3 * 103
        graphs[1].tree[0].n = "changed"
        assert (graphs[0].tree[0].n, graphs[2].tree[0].n) == (0, 0)

    def test_files_by_path_and_temporary_ones(self, source, tmp_path):
        path = str(tmp_path / "graph.zexp")
        source.exportFile(source.root.graph._p_oid, path).close()
        assert source.importFile(path).name == "graph"
        with source.exportFile(source.root.graph._p_oid) as file:
            file.seek(0)
            assert file.read(4) == b"ZEXP"
            file.seek(0)
            assert source.importFile(file).name == "graph"

    def test_what_savepoints_wrote_is_exported(self, source):
        source.root.graph.name = "changed"
        source.root.graph.new = Thing(n=1)
        source.transaction_manager.savepoint()
        file = exported(source, source.root.graph)
        abort(source)
        copy = source.importFile(file)
        assert (copy.name, copy.new.n) == ("changed", 1)

    def test_an_import_can_be_aborted_and_rolled_back(self, db, source):
        file = exported(source, source.root.graph)
        connection = opened(db)
        connection.root.a = 1
        moment = connection.transaction_manager.savepoint()
        connection.root.graph = graph = connection.importFile(file)
        oid = graph._p_oid
        moment.rollback()
        assert sorted(connection.root()) == ["a"]
        with pytest.raises(POSKeyError):
            connection.get(oid)
        file.seek(0)
        connection.root.graph = connection.importFile(file)
        abort(connection)
        assert sorted(connection.root()) == []
        file.seek(0)
        connection.root.graph = connection.importFile(file)
        commit(connection)
        assert opened(db).root.graph.name == "graph"

    def test_changes_made_before_are_kept(self, db, source):
        file = exported(source, source.root.graph)
        connection = opened(db)
        connection.root.thing = Thing(n=1)
        connection.root.graph = connection.importFile(file)
        connection.root.graph.name = "changed"
        connection.root.thing.n = 2
        commit(connection)
        fresh = opened(db)
        assert (fresh.root.graph.name, fresh.root.thing.n) == ("changed", 2)


class TestRefusals:
    @pytest.mark.parametrize("cut", [0, 3, 4, 10, 20, 300, -1, -16, -17])
    def test_a_file_that_is_cut_off(self, db, source, cut):
        content = exported(source, source.root.graph).getvalue()[:cut]
        connection = opened(db)
        connection.root.a = 1
        with pytest.raises(SerializationError, match=r"cut off|no export"):
            connection.importFile(io.BytesIO(content))
        connection.root.b = 2
        commit(connection)
        assert sorted(opened(db).root()) == ["a", "b"]
        assert db.pack().objects_removed == 0

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"ZEXP" + END, "no object"),
            (b"XXXX" + END, "begin with ZEXP"),
            (b"ZEXP" + bytes(8) + b"\x01" + bytes(7) + END, "announces a record"),
            (b"ZEXP" + bytes(8) + bytes(7) + b"\x03abc" + END, "."),
            (b"ZEXP" + b"\x00BLOBSTART" + bytes(6) + END, "blob"),
        ],
    )
    def test_files_that_are_no_exports(self, some, content, reason):
        with pytest.raises(SerializationError, match=reason):
            opened(some).importFile(io.BytesIO(content))

    def test_an_export_that_lacks_an_object(self, some, source):
        content = exported(source, source.root.graph).getvalue()
        keyed = source.root.graph.keyed._p_oid
        start = content.rindex(keyed + bytes(4))
        length = int.from_bytes(content[start + 8 : start + 16], "big")
        lacking = content[:start] + content[start + 16 + length :]
        with pytest.raises(SerializationError, match=f"does not hold: {keyed.hex()}"):
            opened(some).importFile(io.BytesIO(lacking))

    def test_exporting_a_missing_object(self, databases):
        db = databases("model-full")
        with db.transaction() as connection:
            connection.root.holder = Thing(lost=Thing())
        connection = opened(db)
        lost = connection.root.holder.lost._p_oid
        del db.store.objects[lost]
        with pytest.raises(POSKeyError) as caught:
            connection.exportFile(ROOT, io.BytesIO())
        assert (caught.value.oid, caught.value.referrer) == (lost, connection.root.holder._p_oid)

    def test_importing_into_the_past(self, full, source):
        past = opened(full, at=full.lastTransaction())
        with pytest.raises(ReadOnlyError):
            past.importFile(exported(source, source.root.graph))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_do_harm(content):
    store = SavepointStore(2**20)
    numbers = iter(range(1, 10_000))
    importer = Importer(lambda: oid_from(next(numbers)), OutsideFiles)
    with suppress(SerializationError):  # and nothing else
        importer.read(io.BytesIO(b"ZEXP" + content), store, lambda _oid: None)
    assert all(len(written.data) <= len(content) for _, written in store.all())
    store.close()

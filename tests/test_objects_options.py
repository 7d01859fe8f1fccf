"""Options: what may be given, where, and how mistakes are answered."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import objstore
from objstore.contracts import Format, History, StoreOptions
from objstore.errors import (
    NotAStoreError,
    OpenError,
    StoreLockedError,
    StoreMismatchError,
    StoreMissingError,
    UsageError,
)
from objstore.objects.options import DatabaseOptions, Options, locate


class TestLocate:
    def test_a_path(self):
        location = locate("relative/path", {"history": "minimal", "cache_size": 5})
        assert location.path == "relative/path"
        assert location.store == StoreOptions(history=History.MINIMAL)
        assert location.database == DatabaseOptions(cache_size=5)

    def test_a_url(self):
        location = locate(
            "objstore:///some/pl%20ace?history=minimal&format=flat&read_only=true&create=no&flush_age=2.5"
            "&cache_size=10&allowed_classes=app.models.,app.Thing",
            {"pool_size": 3},
        )
        assert location.path == "/some/pl ace"
        assert location.store == StoreOptions(
            history=History.MINIMAL, format=Format.FLAT, read_only=True, create=False, flush_age=2.5
        )
        assert location.database == DatabaseOptions(
            cache_size=10, pool_size=3, allowed_classes=["app.models.", "app.Thing"]
        )

    @pytest.mark.parametrize(
        ("path", "options", "reason"),
        [
            ("", {}, "the path of the store is empty"),
            ("p", {"histroy": "full"}, "unknown option: histroy; there are .*history"),
            ("objstore:///p?nothing=1", {}, "unknown option: nothing"),
            ("p", {"history": "some"}, "history is one of full, minimal, not 'some'"),
            ("p", {"format": "round"}, "format is one of .*chunky"),
            ("p", {"create": "yes"}, "create is true or false"),
            ("p", {"create": 1}, "create is true or false"),
            ("objstore:///p?create=perhaps", {}, "create is true or false, not 'perhaps'"),
            ("p", {"cache_size": -1}, "cache_size is a whole number, 0 or more"),
            ("p", {"cache_size": 1.5}, "cache_size is a whole number"),
            ("p", {"cache_size": True}, "cache_size is a whole number"),
            ("p", {"cache_size": None}, "cache_size is a whole number"),
            ("objstore:///p?cache_size=many", {}, "cache_size is a whole number, 0 or more, not 'many'"),
            ("p", {"flush_age": "1"}, "flush_age is a number"),
            ("p", {"flush_age": float("nan")}, "flush_age is a number"),
            ("p", {"allowed_classes": 5}, "allowed_classes is names, prefixes or a callable"),
            ("p", {"allowed_classes": [b"x"]}, "allowed_classes is names, prefixes or a callable"),
            ("objstore:///p?create=true", {"create": True}, "given twice"),
            ("objstore:///p?create=true&create=true", {}, "given twice"),
            ("objstore://host/p", {}, "objstore:///absolute/path"),
            ("objstore:p", {}, "objstore:///absolute/path"),
            ("objstore:///p#part", {}, "objstore:///absolute/path"),
        ],
    )
    def test_mistakes(self, path, options, reason):
        with pytest.raises(UsageError, match=reason):
            locate(path, options)

    def test_none_is_what_the_store_has(self):
        assert locate("p", {"history": None, "format": None}).store == StoreOptions()

    def test_every_option_has_a_type(self):
        """`Options` tells type checkers what `open` takes."""
        assert set(Options.__annotations__) == {*StoreOptions._fields, *DatabaseOptions._fields}


class TestOpen:
    def test_it_creates_and_finds(self, tmp_path):
        path = tmp_path / "store"
        with objstore.open(path) as db, db.transaction() as connection:
            connection.root.a = 1
        assert (path / "config" / "settings.toml").exists()
        with objstore.open(f"objstore://{path}?create=false") as db:
            assert db.getName() == str(path)
            assert db.statistics()["history"] == "full"
            with db.transaction() as connection:
                assert connection.root.a == 1

    def test_relative_paths(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with objstore.open("store") as db:
            assert db.getName() == str(tmp_path / "store")

    def test_a_missing_store(self, tmp_path):
        """ZODB's FileStorage created an empty one in the place of one that was being renamed."""
        for options in ({"create": False}, {"create": False, "read_only": True}, {"read_only": True}):
            with pytest.raises(StoreMissingError):
                objstore.open(tmp_path / "store", **options)
            assert list(tmp_path.iterdir()) == []

    def test_something_else(self, tmp_path):
        (tmp_path / "store").write_text("not a store")
        with pytest.raises(OpenError):
            objstore.open(tmp_path / "store")
        (tmp_path / "directory").mkdir()
        (tmp_path / "directory" / "A").mkdir()
        (tmp_path / "directory" / "A" / f"o{bytes(8).hex()}.d").write_text("somebody's")
        with pytest.raises(NotAStoreError):
            objstore.open(tmp_path / "directory")

    def test_a_store_of_another_kind(self, tmp_path):
        objstore.open(tmp_path / "store", history="minimal", format="flat").close()
        for options in ({"history": "full"}, {"format": "lawn"}):
            with pytest.raises(StoreMismatchError):
                objstore.open(tmp_path / "store", **options)
        objstore.open(tmp_path / "store", history="minimal", format="flat").close()

    def test_a_store_that_is_open(self, tmp_path):
        with objstore.open(tmp_path / "store", exclusive=True), pytest.raises(StoreLockedError):
            objstore.open(tmp_path / "store")
        objstore.open(tmp_path / "store").close()

    def test_read_only_touches_nothing(self, tmp_path):
        """ZODB 5.2.1: a read-only open created a file."""
        with objstore.open(tmp_path / "store") as db, db.transaction() as connection:
            connection.root.a = 1
        before = facts(tmp_path)
        with objstore.open(tmp_path / "store", read_only=True) as db, db.transaction() as connection:
            assert connection.root.a == 1
            assert db.isReadOnly()
        assert facts(tmp_path) == before

    def test_an_error_lets_go_of_the_store(self, tmp_path):
        objstore.open(tmp_path / "store").close()
        with pytest.raises(UsageError):
            objstore.open(tmp_path / "store", cache_size=-1)
        with pytest.raises(UsageError):
            objstore.open(tmp_path / "store", allowed_classes=5)
        objstore.open(tmp_path / "store").close()

    def test_memory(self):
        with objstore.memory(history="minimal", format="flat", cache_size=3) as db:
            assert db.statistics()["history"] == "minimal"
            assert db.getCacheSize() == 3
            with db.transaction() as connection:
                connection.root.a = 1
        with objstore.memory() as db, db.transaction() as connection:
            assert "a" not in connection.root()


def facts(directory):
    """Every file and directory below one, with what a change would change; but for what processes share."""
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_size, path.read_bytes() if path.is_file() else None)
        for path in directory.rglob("*")
        if path.name != "board"
    }


class TestTheReference:
    """docs/reference/api.md tells all there is."""

    page = (Path(__file__).parent.parent / "docs" / "reference" / "api.md").read_text()

    def test_every_option_and_its_default(self):
        section = self.page.partition("\n## Opening\n")[2].partition("\n## ")[0]
        told = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", section, re.MULTILINE))
        defaults = StoreOptions._field_defaults | DatabaseOptions._field_defaults
        assert told == {name: repr(default) for name, default in defaults.items()}

    def test_every_statistic(self):
        with objstore.memory() as db:
            assert [name for name in db.statistics() if f"`{name}`" not in self.page] == []

    def test_every_error(self):
        names = {name for name in vars(objstore.errors) if name.endswith("Error") and name != "TransientError"}
        assert sorted(name for name in names - {"ObjstoreError"} if f"`{name}`" not in self.page) == []

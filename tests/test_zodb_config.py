"""The storage from a configuration of ZConfig's, and from a URI of zodburi's."""

from __future__ import annotations

from configparser import ConfigParser
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import zc.zlibstorage
import ZConfig
import ZODB.config
import zodburi
from ZODB.DemoStorage import DemoStorage

from objstore.contracts import History, StoreOptions
from objstore.errors import StoreMissingError, UsageError
from objstore.zodb import DirectoryStorage
from objstore.zodb.config import OPTIONS, resolve

TOP = Path(__file__).parent.parent


def test_a_section(tmp_path):
    storage = ZODB.config.storageFromString(
        f"%import objstore\n<directorystorage>\npath {tmp_path}/store\nhistory minimal\nformat chunky\n"
        "flush-bytes 1mb\nflush-age 2.5\nread-only false\npack-gc false\nbackground no\n</directorystorage>"
    )
    assert isinstance(storage, DirectoryStorage)
    options = storage._store._options
    assert (options.flush_bytes, options.flush_age, options.background) == (2**20, 2.5, False)
    assert storage._store.history_mode is History.MINIMAL
    assert storage._store.settings.format == "chunky"
    assert not storage._pack_gc
    storage.close()


def test_a_section_has_every_option():
    known = set(StoreOptions._fields)
    assert set(OPTIONS) == known | {"pack_gc"}
    text = (TOP / "objstore" / "component.xml").read_text()
    assert all(f'name="{name.replace("_", "-")}"' in text for name in OPTIONS)


def test_a_section_inside_of_others(tmp_path):
    db = ZODB.config.databaseFromString(
        f"%import objstore\n%import zc.zlibstorage\n<zodb>\n<demostorage>\n<zlibstorage>\n<directorystorage>\n"
        f"path {tmp_path}/store\n</directorystorage>\n</zlibstorage>\n</demostorage>\n</zodb>"
    )
    assert isinstance(db.storage, DemoStorage)
    assert isinstance(db.storage.base, zc.zlibstorage.ZlibStorage)
    db.close()


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("", ZConfig.ConfigurationError),
        ("path {}/store\ncolour red", ZConfig.ConfigurationError),
        ("path {}/store\nhistory some", UsageError),
        ("path {}/store\ncreate false", StoreMissingError),
        ("path {}/store\nflush-bytes many", ZConfig.DataConversionError),
    ],
)
def test_a_section_that_is_wrong(tmp_path, line, error):
    lines = line.format(tmp_path)
    with pytest.raises(error):
        ZODB.config.storageFromString(f"%import objstore\n<directorystorage>\n{lines}\n</directorystorage>")
    assert not (tmp_path / "store").exists()


def test_a_uri(tmp_path, monkeypatch):
    setup = ConfigParser()
    setup.read(TOP / "setup.cfg")
    name, _, target = setup["options.entry_points"]["zodburi.resolvers"].strip().partition(" = ")
    points = [EntryPoint(name, target, "zodburi.resolvers")]
    monkeypatch.setattr(zodburi, "entry_points", lambda **_: points)
    factory, options = zodburi.resolve_uri(
        f"objstore://{tmp_path}/a%20store?history=minimal&pack_gc=no&connection_cache_size=5&database_name=one"
    )
    assert not (tmp_path / "a store").exists()
    storage = factory()
    assert storage.getName() == f"{tmp_path}/a store"
    assert not storage.supportsUndo()
    assert not storage._pack_gc
    db = ZODB.DB(storage, **options)
    assert (db.getCacheSize(), db.database_name) == (5, "one")
    db.close()


def test_a_uri_that_is_wrong(tmp_path):
    factory, options = resolve(f"objstore://{tmp_path}/store?colour=red")
    assert options == {}
    with pytest.raises(UsageError, match="colour"):
        factory()
    with pytest.raises(UsageError, match="pack_gc is true or false"):
        resolve(f"objstore://{tmp_path}/store?pack_gc=perhaps")

"""Files in a store's directory that are none of it; and parts of a store that are missing."""

from __future__ import annotations

from random import Random

import pytest
from crashing import Judge, Script, judge_objects
from simulated import SimulatedFilesystem
from stores import COMBINATIONS, PATH, open_on

from objstore.contracts import Filesystem, Format, History
from objstore.errors import CorruptionError, NotAStoreError, OpenError, StoreMissingError
from objstore.upkeep.check import check

every_store = pytest.mark.parametrize(("history", "format"), COMBINATIONS)

JUNK = [".nfs000000000123abcd", "t~", "#t#", "o0000000000000001.d.bak", "desktop.ini", "o.tmp.swp", "x" * 200]


def places(fs: Filesystem, path: str) -> list[str]:
    """A directory and all below it."""
    found = [path]
    for entry in fs.entries(path):
        if entry.is_directory:
            found += places(fs, f"{path}/{entry.name}")
    return found


def everything(fs: Filesystem, path: str) -> dict[str, bytes]:
    return {
        f"{place}/{entry.name}": fs.read(f"{place}/{entry.name}")
        for place in places(fs, path)
        for entry in fs.entries(place)
        if not entry.is_directory
    }


def used(history: History, format: Format) -> Script:
    """A store with something in the home, in the journal, and recycled."""
    script = Script(history, format)
    script.commit({0: "root", 1: "a"}, {0: (1,)})
    script.flush()
    script.commit({1: "a, changed"})
    return script


@every_store
def test_junk_is_ignored_by_opening_and_told_by_check(history: History, format: Format) -> None:
    """Editors' backups, what NFS keeps of open files, and the lost+found of a filesystem, in every directory."""
    script = used(history, format)
    script.reopen(flush=False)
    script.commit({1: "a, again"})
    fs = script.fs
    junk = {}
    for place in places(fs, PATH):
        for name in JUNK:
            junk[f"{place}/{name}"] = b"somebody's"
            with fs.create(f"{place}/{name}") as file:
                file.write(b"somebody's")
    # What somebody puts into the journal's own directories may go with them. Only it must not stop anything.
    own = [path for path in junk if "/journal/working_" in path or "/journal/spare_" in path]
    assert own
    for directory in sorted({path.rpartition("/")[0] for path in own}):
        fs.make_directory(f"{directory}/a directory")
    for directory in ("journal/working_of_mine_done", "journal/lost+found", "A/lost+found"):
        fs.make_directory(f"{PATH}/{directory}")
        junk[f"{PATH}/{directory}/mine"] = b""
        fs.create(f"{PATH}/{directory}/mine").close()
    for file in ("journal/working_0000000000000001_0000000000000000_done", "journal/spare_0000000000000007"):
        junk[f"{PATH}/{file}"] = b""  # the names of directories, of files
        fs.create(f"{PATH}/{file}").close()
    script.reopen()
    judge_objects(script.store, script.commits, [])
    script.commit({0: "root", 1: "a, and again", 2: "b"}, {0: (1, 2)})
    script.flush()
    script.pack(script.commits[-1].tid)
    judge_objects(script.store, script.commits, script.packs)
    there = everything(fs, PATH)
    assert {path: data for path, data in there.items() if path in junk} == {
        path: data for path, data in junk.items() if path not in own
    }
    told = {finding.path for finding in check(script.store)}
    assert [path for path in there if path in junk and not {path, path.rpartition("/")[0]} & told] == []
    assert {finding.kind for finding in check(script.store)} == {"foreign"}
    script.reopen()
    judge_objects(script.store, script.commits, script.packs)


@every_store
def test_a_read_only_opening_changes_nothing(history: History, format: Format) -> None:
    """ZODB 5.2.1: a read-only open created a file."""
    script = used(history, format)
    script.fs.stop()
    for state in script.fs.crash_states(rng=Random(1), limit=20):
        fs = SimulatedFilesystem(state)
        before = everything(fs, PATH)
        store = open_on(fs, history, format, read_only=True)
        judge_objects(store, script.commits, [])
        list(check(store))
        store.close()
        assert fs.operations == 0
        assert everything(fs, PATH) == before


@pytest.mark.parametrize("what", ["missing", "empty"])
def test_a_read_only_opening_creates_nothing(what: str) -> None:
    fs = SimulatedFilesystem()
    if what == "empty":
        fs.make_directory(PATH)
    before = fs.operations
    for options in ({"read_only": True}, {"create": False}, {"read_only": True, "create": False}):
        with pytest.raises(StoreMissingError):
            open_on(fs, **options)
    assert fs.operations == before


@every_store
def test_no_store_is_created_where_one_was(history: History, format: Format, record_property) -> None:
    """FileStorage: between two renames of a pack the file is missing, and opening creates an empty one."""
    script = used(history, format)
    begun = script.fs.operations
    script.pack(script.commits[0].tid)
    tried: set[bytes] = set()
    for after in range(begun, script.fs.operations + 1):
        for state in script.fs.crash_states(after, rng=Random(after), limit=30):
            if state.digest not in tried:
                tried.add(state.digest)
                store = open_on(SimulatedFilesystem(state), history, format, create=True)
                assert store.settings.identity == script.identity
                judge_objects(store, script.commits, script.packs)
    record_property("crash states tried", len(tried))


@every_store
@pytest.mark.parametrize("part", ["config/settings.toml", "config", "journal", "marks", "A"])
def test_a_store_that_lost_a_part_is_not_made_anew(part: str, history: History, format: Format) -> None:
    """What is missing was not asked for: the error says so, and nothing is written where data may be."""
    script = used(history, format)
    script.store.close()
    fs = script.fs
    fs.make_directory("/elsewhere")
    fs.rename(f"{PATH}/{part}", "/elsewhere/part")
    kept = everything(fs, PATH)
    for options in ({}, {"create": True}, {"read_only": True}):
        with pytest.raises((NotAStoreError, CorruptionError, OpenError)) as raised:
            open_on(fs, history, format, **options).view().load(bytes(8))
        assert PATH in str(raised.value)
    assert {path: data for path, data in everything(fs, PATH).items() if "/locks/" not in path} == {
        path: data for path, data in kept.items() if "/locks/" not in path
    }
    if not fs.exists(f"{PATH}/{part}"):
        fs.rename("/elsewhere/part", f"{PATH}/{part}")
    script.restart()
    judge_objects(script.store, script.commits, [])
    Judge(script).sweep(fs.operations, limit=1)

"""Readers, while revisions move from the journal to the home, are packed, and journal files are recycled."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from crashing import Script, known
from durability import Operation
from stores import COMBINATIONS, record

from objstore.contracts import Format, History, View
from objstore.errors import POSKeyError
from objstore.ids import Oid, Tid, oid_from

every_store = pytest.mark.parametrize(("history", "format"), COMBINATIONS)


def state_at(script: Script, snapshot: Tid) -> dict[Oid, tuple[bytes | None, Tid]]:
    """What a view of a snapshot must show: an object's record, None where it was deleted, and its serial."""
    found = {}
    for oid, revisions in known(script.commits).items():
        seen = [(data, tid) for tid, data in revisions if tid <= snapshot]
        if seen:
            found[oid] = seen[-1]
    return found


def assert_shows(view: View, expected: dict[Oid, tuple[bytes | None, Tid]]) -> None:
    for oid, (data, tid) in expected.items():
        if data is None:
            with pytest.raises(POSKeyError):
                view.load(oid)
        else:
            assert view.load(oid) == (data, tid)


def written(script: Script) -> None:
    """Several revisions of some objects, in the home and in the journal."""
    script.commit({0: "root", 1: "a", 2: "b", 3: "c"}, {0: (1, 2, 3)})
    script.commit({1: "a, changed"})
    script.flush()
    script.commit({1: "a, again", 0x12345: "far away", 0: "root"}, {0: (1, 2, 3, 0x12345)})
    script.commit({2: "b, changed", 0: "root", 3: None}, {0: (1, 2, 0x12345)})


def watched(script: Script, look: Callable[[], None], work: Callable[[], object]) -> int:
    """Do some work and look before every operation of it; how often that was."""
    looks = 0

    def hook(_operation: Operation) -> None:
        nonlocal looks
        script.fs.before_operation = None
        look()
        looks += 1
        script.fs.before_operation = hook

    script.fs.before_operation = hook
    work()
    script.fs.before_operation = None
    look()
    return looks


@every_store
def test_each_object_is_there_at_every_step_of_a_flush(history: History, format: Format) -> None:
    """DirectoryStorage 1.0b2: objects were missing while their file moved from the journal to the home."""
    script = Script(history, format)
    written(script)
    views = [script.store.view()]
    script.commit({1: "a, newest", 2: "b, newest"})

    def look() -> None:
        for view in (*views, script.store.view()):
            assert_shows(view, state_at(script, view.snapshot))
            if view not in views:
                view.close()
        for commit in script.commits if history is History.FULL else []:
            past = script.store.view(at=commit.tid)
            assert_shows(past, state_at(script, commit.tid))
            past.close()

    assert watched(script, look, script.flush) >= 10
    views.pop().close()
    watched(script, look, script.flush)


@every_store
def test_a_copy_while_others_commit_equals_one_tid(history: History, format: Format) -> None:
    """DirectoryStorage 1.1.2: superseded files were dropped too early, so backups were inconsistent.

    Each object is copied between two operations of commits, flushes and a pack that go on meanwhile.
    """
    script = Script(history, format)
    numbers = range(1, 30)
    script.commit({0: "root", **dict.fromkeys(numbers, "first")}, {0: numbers})
    script.flush()
    script.commit(dict.fromkeys(numbers, "second"))
    view = script.store.view()
    expected = state_at(script, view.snapshot)
    copied: dict[Oid, tuple[bytes, Tid]] = {}

    def copy() -> None:
        if len(copied) < len(expected):
            oid = list(expected)[len(copied)]
            copied[oid] = view.load(oid)

    def others() -> None:
        for turn in range(4):
            script.commit({number: f"later {turn}" for number in numbers if number % 4 == turn})
            script.flush()
        script.pack(script.commits[-1].tid)

    watched(script, copy, others)
    assert copied == expected


@every_store
def test_a_pack_at_every_step(history: History, format: Format) -> None:
    """Everything reachable is there at each step of a pack, and a snapshot from before it stays whole."""
    script = Script(history, format)
    written(script)
    script.commit({4: "garbage", 5: "garbage too"}, {4: (5,)})
    held = script.store.view()
    before = state_at(script, held.snapshot)
    last = script.commit({1: "a, newest"})
    script.commit({1: "a, after the pack"})
    garbage = {oid_from(4), oid_from(5)}

    def look() -> None:
        with_new = script.store.view()
        now = state_at(script, with_new.snapshot)
        assert_shows(with_new, {oid: value for oid, value in now.items() if oid not in garbage})
        assert_shows(held, {oid: value for oid, value in before.items() if oid not in garbage})
        with_new.close()

    watched(script, look, lambda: script.pack(last))
    held.close()


def reads(script: Script, work: Callable[[], object]) -> int:
    """How many files some work reads."""
    count = 0

    def hook(_path: str) -> None:
        nonlocal count
        count += 1

    script.fs.before_read = hook
    work()
    script.fs.before_read = None
    return count


@every_store
def test_a_journal_file_is_recycled_under_a_reader(history: History, format: Format) -> None:
    """leveldb#195, and the reset of SQLite's WAL: a log was cleaned up while somebody still read it.

    Between finding where a record stands and reading it, everything is flushed and the file is written over.
    """
    for at in range(reads(*_reader(history, format))):
        script, read = _reader(history, format)
        steps = _interference(script)
        seen = 0

        def hook(_path: str, at: int = at, steps: Iterator[None] = steps, script: Script = script) -> None:
            nonlocal seen
            seen += 1
            if seen == at + 1:
                script.fs.before_read = None
                for _ in steps:
                    pass

        script.fs.before_read = hook
        read()


def _reader(history: History, format: Format) -> tuple[Script, Callable[[], None]]:
    script = Script(history, format)
    written(script)
    view = script.store.view() if history is History.FULL else None

    def read() -> None:
        own = view or script.store.view()
        expected = state_at(script, own.snapshot)
        if view is None:  # without a pin, so that everything can be flushed: only unchanged objects are read
            own.close()
            assert script.store.revision(oid_from(2), expected[oid_from(2)][1]).data == expected[oid_from(2)][0]
            assert script.store.revision(oid_from(0), expected[oid_from(0)][1]).data == expected[oid_from(0)][0]
        else:
            assert_shows(own, expected)
            for oid in expected:
                list(script.store.summaries(oid))

    return script, read


def _interference(script: Script) -> Iterator[None]:
    script.flush()
    yield
    for turn in range(10):  # as many as there are recycled directories, and more
        script.commit({1: f"other {turn}", 7: record("longer" * 100)[0]})
        yield
    script.flush()
    yield

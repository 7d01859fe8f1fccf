"""What a snapshot may hold back in the home of a segmented Minimal store, where nobody waits for it."""

from __future__ import annotations

import pytest
from stores import commit, open_on, value_of

from objstore.contracts import Format, History
from objstore.errors import SnapshotTooOldError
from objstore.ids import NO_TID, ROOT
from objstore.machine.memory import MemoryFilesystem

LIMIT = 30_000


def minimal(filesystem, history=History.MINIMAL):
    return open_on(filesystem, history, Format.SEGMENTED, pin_limit=LIMIT)


def write(store, volume):
    """Commit about so many bytes, and flush them."""
    for at in range(volume // 1_000):
        commit(store, {0: at, 1: "x" * 900})
    store.flush()


def bytes_of(filesystem):
    paths = ["/store/A"]
    total = 0
    while paths:
        path = paths.pop()
        for entry in filesystem.entries(path):
            if entry.is_directory:
                paths.append(f"{path}/{entry.name}")
            else:
                total += len(filesystem.read(f"{path}/{entry.name}"))
    return total


@pytest.fixture
def filesystem():
    return MemoryFilesystem()


def test_a_snapshot_holds_back_so_much_and_is_then_given_up(filesystem):
    store = minimal(filesystem)
    commit(store, {0: "old"})
    store.flush()
    old = store.view()
    write(store, LIMIT * 3 // 4)
    assert value_of(old.load(ROOT)[0]) == "old"
    newer = store.view()
    seen = newer.load(ROOT)
    write(store, LIMIT // 4)
    store.flush()  # one that has nothing to do gives up nobody
    write(store, 1_000)
    with pytest.raises(SnapshotTooOldError):
        old.load(ROOT)
    assert newer.load(ROOT) == seen, "it holds back less than half of the limit"
    assert store.statistics()["snapshots_expired"] == 1
    assert old.advance() is None
    assert old.load(ROOT)[1] == store.last_tid()
    old.close()
    newer.close()
    store.close()


def test_the_home_does_not_grow_beyond_the_bound(filesystem):
    store = minimal(filesystem)
    commit(store, {0: "old"})
    store.flush()
    forgotten = store.view()
    sizes = []
    for _ in range(60):
        write(store, LIMIT // 3)
        sizes.append(bytes_of(filesystem))
    assert max(sizes[30:]) <= 4 * LIMIT, "unbounded it would be 600,000"
    forgotten.close()
    store.close()


def test_what_other_processes_flush_counts_too(filesystem):
    ours, theirs = minimal(filesystem), minimal(filesystem)
    commit(ours, {0: "old"})
    ours.flush()
    view = ours.view()
    write(theirs, LIMIT * 2 // 3)
    write(ours, LIMIT * 2 // 3)
    write(ours, 1_000)
    assert ours.statistics()["snapshots_expired"] == 1
    with pytest.raises(SnapshotTooOldError):
        view.load(ROOT)
    view.close()
    ours.close()
    theirs.close()


def test_a_snapshot_that_another_process_holds_is_given_up(filesystem):
    ours, theirs = minimal(filesystem), minimal(filesystem)
    commit(ours, {0: "old"})
    view = theirs.view()
    write(ours, LIMIT // 2)
    write(ours, LIMIT)
    write(ours, 1_000)
    with pytest.raises(SnapshotTooOldError):
        view.load(ROOT)
    assert view.advance() is None
    view.close()
    ours.close()
    theirs.close()


def test_full_keeps_all_and_gives_up_nobody(filesystem):
    store = minimal(filesystem, History.FULL)
    commit(store, {0: "old"})
    store.flush()
    view = store.view()
    write(store, 3 * LIMIT)
    assert value_of(view.load(ROOT)[0]) == "old"
    assert store.statistics()["snapshots_expired"] == 0
    assert view.snapshot > NO_TID
    view.close()
    store.close()

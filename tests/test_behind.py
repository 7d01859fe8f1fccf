"""A process that did not look for a while: it follows what others committed meanwhile, or begins anew."""

from __future__ import annotations

from contextlib import ExitStack, closing

import pytest
from stores import commit, contents, open_on

from objstore.contracts import Format, History
from objstore.engine import peers
from objstore.errors import ConflictError
from objstore.machine.board import RING
from objstore.machine.posix import PosixFilesystem

OBJECTS = range(52)


@pytest.fixture(autouse=True)
def on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("stores.PATH", str(tmp_path / "store"))


@pytest.mark.parametrize("ring", [64, pytest.param(RING, marks=pytest.mark.long)])
@pytest.mark.parametrize("count", [-1, 0, 40])
@pytest.mark.parametrize("flushed", [False, True])
@pytest.mark.parametrize("history", History)
@pytest.mark.parametrize("format", [Format.SEGMENTED, Format.CHUNKY])
def test_more_was_committed_than_the_board_remembers(history, format, flushed, count, ring, monkeypatch):
    """Half of a ring and so many transactions more."""
    monkeypatch.setattr(peers, "RING", ring)
    count += ring // 2
    with ExitStack() as stack:

        def opened(**options):
            return stack.enter_context(closing(open_on(PosixFilesystem(), history, format, **options)))

        behind = opened()
        commit(behind, {0: "root", 1: "before"})
        other, reader = opened(), opened(read_only=True)
        early = stack.enter_context(closing(behind.view()))
        views = [stack.enter_context(closing(each.view())) for each in (behind, reader)]
        for number in range(count):
            commit(other, {1: number, 2 + number % 50: number})
            if flushed and number % (ring // 8) == 0:
                other.flush()
        if flushed:
            other.flush()
        written = {1: count - 1, **{2 + number % 50: number for number in range(count)}}
        for view, store in zip(views, (behind, reader), strict=True):
            changed = view.advance()
            assert changed is None or {int.from_bytes(oid, "big") for oid in changed} == written.keys()
            assert contents(store, OBJECTS) == {0: "root", **written}
            assert store.last_tid() == other.last_tid()
        with pytest.raises(ConflictError):
            commit(behind, {1: "overtaken"}, view=early)
        commit(behind, {1: "from behind"})
        commit(other, {2: "from the other"})
        for store in (behind, other, reader):
            assert contents(store, [1, 2]) == {1: "from behind", 2: "from the other"}
    with closing(open_on(PosixFilesystem(), history, format)) as again:
        assert contents(again, [0, 1, 2]) == {0: "root", 1: "from behind", 2: "from the other"}


@pytest.mark.parametrize("history", History)
def test_a_reader_whose_writer_was_followed_by_another(history):
    """Nobody wrote in between: the second writer begins the board anew."""
    writer = open_on(PosixFilesystem(), history)
    commit(writer, {0: "first"})
    with closing(open_on(PosixFilesystem(), history, read_only=True)) as reader, closing(reader.view()) as view:
        writer.close()
        with closing(open_on(PosixFilesystem(), history)) as second:
            commit(second, {0: "second", 1: "new"})
            assert contents(reader, [0, 1]) == {0: "second", 1: "new"}
            view.advance()
            assert view.snapshot == second.last_tid()
        assert contents(reader, [0, 1]) == {0: "second", 1: "new"}

"""The contract of a home, over every history mode and format."""

from __future__ import annotations

import errno
import os
import re
from itertools import pairwise
from pathlib import Path

import pytest
from pasts import COMBINATIONS, LATEST, PLACE, Bench, agree_in_contents, put, some_past

from objstore.contracts import Format, History, Removal
from objstore.errors import CorruptionError
from objstore.ids import MAX_TID, NO_TID, number, oid_from, tid_from
from objstore.machine.memory import MemoryFilesystem
from objstore.machine.posix import PosixFilesystem

CLASSIC = [layout for layout in Format if layout is not Format.SEGMENTED]
EDGES = (0, 1, 255, 256, 65535, 65536, 65537, 2**24 - 1, 2**24, 2**32, 2**63 - 1, 2**63, 2**64 - 1)
"""Oids at the edges of what the formats divide by."""


ON_DISK = [(history, layout) for history, layout in COMBINATIONS if layout in (Format.SEGMENTED, Format.CHUNKY)]


@pytest.fixture(
    params=[("memory", *pair) for pair in COMBINATIONS] + [("disk", *pair) for pair in ON_DISK],
    ids=lambda chosen: "-".join(chosen),
)
def bench(request, tmp_path):
    where, history, layout = request.param
    if where == "memory":
        return Bench(MemoryFilesystem(), history, layout)
    return Bench(PosixFilesystem(), history, layout, f"{tmp_path}/A")


class TestReading:
    def test_an_empty_home_has_nothing(self, bench):
        bench.agree()
        assert (
            list(bench.home.oids()) == list(bench.home.transactions(MAX_TID)) == list(bench.home.findings()) == []
        )

    def test_a_home_of_yesterday_is_prepared_again(self, bench):
        some_past(bench)
        bench.home.prepare()
        bench.agree()

    def test_every_revision_is_found_at_every_moment(self, bench):
        some_past(bench)
        bench.agree()
        bench.home.close()
        bench.agree()
        bench.reopen()
        bench.agree()

    def test_oids_at_the_edges(self, bench):
        bench.past.write(dict.fromkeys(EDGES, b"first"))
        bench.past.write(dict.fromkeys(EDGES[::2], b"second"))
        bench.apply()
        bench.agree()
        bench.reopen()
        bench.agree()

    def test_a_large_record_and_an_empty_one(self, bench):
        bench.past.write({1: bytes(3 * 2**20), 2: b"", 3: bytes(700)})
        bench.apply()
        bench.agree()

    def test_tids_up_to_the_last_there_is(self, bench):
        bench.past.write({1: b"early"})
        bench.past.write({1: b"late"}, step=number(MAX_TID) - number(bench.past.last))
        bench.past.write({1: b"beyond"}, step=2**62)
        bench.past.write({1: b"last"}, step=number(LATEST) - number(bench.past.last) - 1)
        bench.apply()
        for upto in bench.past.tids:
            found = bench.home.load(oid_from(1), upto)
            assert found is None or found.tid <= upto
        assert bench.home.load(oid_from(1), LATEST).data == b"last"
        assert bench.home.load(oid_from(1), NO_TID) is None

    def test_transactions_are_read_as_they_are_asked_for(self, bench):
        some_past(bench)
        kept = bench.history is History.FULL
        found = bench.home.transactions(MAX_TID)
        assert next(found, None) == (bench.past.all[-1][0] if kept else None)
        bench.past.write({1: b"later"})
        bench.apply()
        assert list(found) == [transaction for transaction, _ in bench.past.all[-3::-1] if kept]


class TestApplying:
    def test_the_same_again_changes_nothing(self, bench):
        some_past(bench, rounds=2)
        bench.past.write({1: b"again", 70: None})
        bench.past.write({1: b"and again"})
        batch = bench.past.batch(bench.flushed)
        for _ in range(3):
            bench.home.apply(batch)
            bench.agree()
        files = bench.files()
        bench.home.apply(batch)
        assert bench.files() == files

    def test_an_empty_batch_is_nothing(self, bench):
        files = bench.files()
        bench.home.apply([])
        bench.home.maintain(MAX_TID)
        assert bench.home.remove([]) == bench.home.remove_transactions([]) == 0
        assert bench.files() == files

    def test_a_transaction_without_revisions_is_kept(self, bench):
        """In Minimal a later transaction of the batch may have superseded all that one wrote."""
        bench.past.write({})
        bench.past.write({1: b"one"})
        bench.apply()
        bench.past.write({})
        bench.apply()
        bench.agree()

    @pytest.mark.parametrize("cuts", [(3, 5), (1, 2, 3, 4, 5), (5,), (6,), (7,), (2, 7), (4, 6, 7)])
    def test_a_flush_that_was_not_completed_is_repeated_in_other_batches(self, bench, cuts):
        """A process was killed before the mark `flushed` advanced; the next one may cut otherwise."""
        bench.past.write({1: b"before", 65536: b"before"})
        bench.apply()
        for at in range(7):
            bench.past.write({1: b"%d" % at, at * 65536: b"here and there", 9 + at: b"new"})
        pending = bench.past.tids[1:]
        bench.home.apply(bench.past.batch(bench.flushed, pending[4]))
        bench.reopen()
        for cut in (*cuts, 7):
            bench.home.apply(bench.past.batch(bench.flushed, pending[cut - 1]) or bench.past.batch()[-1:])
            bench.reopen(pending[cut - 1])
        bench.agree()
        assert list(bench.home.findings()) == []

    def test_reading_while_a_batch_is_applied_finds_what_was_there_or_what_comes(self, bench):
        """Flushed revisions leave the journal's index after `apply` has returned, not before."""
        some_past(bench, rounds=1)
        seen = []

        def batch():
            for transaction, revisions in bench.past.batch(bench.flushed):
                yield transaction, revisions
                seen.append(bench.home.current(oid_from(1)))

        bench.past.write({1: b"next"})
        bench.home.apply(batch())
        # Minimal homes in the classic formats replace one file after the other.
        assert seen == [bench.past.tids[-2]] or (seen == [bench.past.last] and not bench.home.keeps_superseded)
        assert bench.home.current(oid_from(1)) == bench.past.last

    def test_directories_made_by_a_process_that_was_killed_are_used(self, bench):
        bench.past.write(dict.fromkeys(EDGES, b"x"))
        bench.home.apply(bench.past.batch())
        for name in bench.files():
            bench.filesystem.unlink(f"{bench.path}/{name}")
        bench.reopen()
        bench.apply()
        bench.agree()


class TestRemoving:
    def test_objects_and_revisions_are_removed(self, bench):
        some_past(bench)
        rest, gone = bench.past.revisions[oid_from(1)], bench.past.revisions[oid_from(65535)]
        removals = [
            Removal(oid_from(2), (), whole=True),
            Removal(oid_from(70), (), whole=True),
            Removal(oid_from(65535), tuple(found.tid for found in gone), whole=True),
        ]
        if bench.history is History.FULL:
            removals.append(Removal(oid_from(1), tuple(found.tid for found in rest[:5]), whole=False))
        freed = bench.remove(removals)
        assert freed > 0 or (freed == 0 and isinstance(bench.filesystem, PosixFilesystem))  # whole blocks only
        bench.agree()
        bench.reopen()
        bench.agree()
        assert not any("0000000000000046" in name for name in bench.files())
        assert bench.home.remove(removals) == 0
        bench.agree()

    def test_the_last_object_goes_and_the_home_is_empty(self, bench):
        some_past(bench, rounds=2)
        bench.remove([Removal(oid, (), whole=True) for oid in list(bench.past.revisions)])
        tids = list(bench.past.details)
        bench.home.remove_transactions(tids)
        bench.past.forget_transactions(tids)
        bench.agree()
        assert bench.files() == set()
        bench.past.write({4: b"anew"})
        bench.apply()
        bench.agree()

    def test_transactions_are_removed(self, bench):
        some_past(bench)
        gone = bench.past.tids[1:9:2]
        assert bench.home.remove_transactions(gone) >= 0
        bench.past.forget_transactions(gone)
        bench.agree()
        assert bench.home.remove_transactions(gone) == 0

    def test_what_is_not_there_is_not_removed(self, bench):
        some_past(bench)
        removals = [Removal(oid_from(at), (tid_from(5),), whole) for at in (3**20, 999) for whole in (True, False)]
        assert bench.home.remove(removals) == 0
        assert bench.home.remove_transactions([tid_from(5)]) == 0
        bench.agree()

    def test_an_object_may_be_named_twice(self, bench):
        some_past(bench)
        tids = [found.tid for found in bench.past.revisions[oid_from(1)]]
        if bench.history is History.FULL:
            bench.remove([Removal(oid_from(1), (tid,), whole=False) for tid in tids[:4]])
            bench.agree()
        bench.remove([Removal(oid_from(1), (), whole=True), Removal(oid_from(1), tuple(tids[:2]), whole=False)])
        bench.agree()

    def test_removing_goes_on_after_maintaining(self, bench):
        some_past(bench)
        bench.home.maintain(NO_TID)
        bench.remove([Removal(oid_from(1), (), whole=True)])
        bench.agree()
        bench.home.maintain(NO_TID)
        some_past(bench, rounds=2)
        bench.home.maintain(NO_TID)
        bench.agree()


# --- foreign files and damage ------------------------------------------------------------------------

JUNK = (
    ".nfs000000000000000100000001",
    "core",
    "notes.txt~",
    "lost+found/#123",
    "letter.tmp",
    "x.seg.tmp",
    "o/.DS_Store",
)


class TestForeignFiles:
    def test_they_are_ignored_and_reported(self, bench):
        """Junk files anywhere (editors' backups, .nfs*, lost+found) are ignored, and reported by check."""
        some_past(bench, rounds=3)
        places = {""} | {f"{name.rpartition('/')[0]}/" for name in bench.files() if "/" in name}
        junk = {f"{bench.path}/{place}{name}" for place in places for name in JUNK}
        for path in junk:
            put(bench.filesystem, path, b"junk")
        bench.reopen()
        agree_in_contents(bench.home, bench.past)
        expect = [found for found in bench.home.findings() if found.kind not in ("foreign", "misplaced")]
        assert expect == []
        reported = {found.path for found in bench.home.findings()}
        assert all(any(path == found or path.startswith(f"{found}/") for found in reported) for path in junk)
        assert all(any(path == found or path.startswith(f"{found}/") for path in junk) for found in reported)

    def test_a_copy_of_the_home_within_the_home_is_not_the_home(self, bench):
        some_past(bench, rounds=2)
        for name in bench.files():
            put(bench.filesystem, f"{bench.path}/backup/{name}", bench.filesystem.read(f"{bench.path}/{name}"))
        bench.reopen()
        agree_in_contents(bench.home, bench.past)
        found = list(bench.home.findings())
        assert found != []
        assert {finding.kind for finding in found} <= {"foreign", "misplaced"}
        assert all(finding.path.startswith(f"{bench.path}/backup") for finding in found)

    def test_files_in_another_files_directory_are_reported_as_misplaced(self, bench):
        """In the classic formats they are ignored. A segment's place says which objects it tells of, so one
        that is in the wrong place may be missing from another, and is an error."""
        some_past(bench, rounds=2)
        misplaced = set()
        for name in bench.files():
            path = f"{bench.path}/0000000099/00/{name.rpartition('/')[2]}"
            put(bench.filesystem, path, bench.filesystem.read(f"{bench.path}/{name}"))
            misplaced.add(path)
        bench.reopen()
        assert {(found.kind, found.path) for found in bench.home.findings()} == {
            ("misplaced", path) for path in misplaced
        }
        if bench.format is Format.SEGMENTED:
            with pytest.raises(CorruptionError, match="another directory"):
                list(bench.home.oids())
        else:
            agree_in_contents(bench.home, bench.past)


class TestDamage:
    def damage(self, bench, name, change):
        path = f"{bench.path}/{name}"
        put(bench.filesystem, path, change(bench.filesystem.read(path)))
        bench.reopen()
        return path

    @pytest.mark.parametrize(
        "change",
        [
            lambda content: content[:-1] + bytes([content[-1] ^ 1]),
            lambda content: bytes([content[0] ^ 0x10]) + content[1:],
            lambda content: content[: len(content) // 2],
            lambda _: b"",
            lambda content: bytes(len(content)),
        ],
        ids=["last byte", "first byte", "cut off", "empty", "zeros"],
    )
    def test_each_damaged_file_is_reported_and_no_other(self, bench, change):
        bench.past.write({1: b"one", 65536: b"other"})
        bench.past.write({1: b"two"})
        bench.apply()
        for name in sorted(bench.files()):
            whole = bench.filesystem.read(f"{bench.path}/{name}")
            path = self.damage(bench, name, change)
            found = list(bench.home.findings())
            assert {finding.path for finding in found} == {path}, name
            assert {finding.kind for finding in found} <= {"checksum", "pointer", "name"}
            put(bench.filesystem, path, whole)
        bench.reopen()
        bench.agree()

    def test_reading_what_is_damaged_raises_and_names_it(self, bench):
        bench.past.write({1: b"a record that is damaged", 2: b"one that is not"})
        bench.apply()
        name = next(name for name in bench.files() if name.endswith((".seg", ".d")) or name.startswith(("o", "A")))
        name = next(
            name
            for name in sorted(bench.files())
            if b"is damaged" in bench.filesystem.read(f"{bench.path}/{name}")
        )
        path = self.damage(bench, name, lambda content: content.replace(b"is damaged", b"is dbmaged"))
        with pytest.raises(CorruptionError) as caught:
            bench.home.load(oid_from(1), MAX_TID)
        assert (caught.value.path, caught.value.oid, caught.value.tid) == (path, oid_from(1), bench.past.last)
        assert bench.home.load(oid_from(2), MAX_TID).data == b"one that is not"
        assert bench.home.current(oid_from(1)) == bench.past.last
        assert [(found.kind, found.oid) for found in bench.home.findings()] == [("checksum", oid_from(1))]

    def test_a_file_under_another_name_is_noticed(self, bench):
        bench.past.write({1: b"one", 65537: b"other"})
        bench.past.write({1: b"two", 65537: b"other two"})
        bench.apply()
        # Files in pairs that differ in object, in tid, or in bucket: each is put in the place of the other.
        for name, other in pairwise(sorted(bench.files())):
            path, whole = f"{bench.path}/{name}", bench.filesystem.read(f"{bench.path}/{name}")
            wrong = bench.filesystem.read(f"{bench.path}/{other}")
            if wrong == whole:
                continue
            put(bench.filesystem, path, wrong)
            bench.reopen()
            assert path in {found.path for found in bench.home.findings()}, (name, other)
            put(bench.filesystem, path, whole)

    def test_a_file_in_a_directorys_place_is_reported(self, bench):
        some_past(bench, rounds=1)
        for name in bench.files():
            directory = f"{bench.path}/{name}".rpartition("/")[0]
            bench.filesystem.unlink(f"{bench.path}/{name}")
            if directory != bench.path and not bench.filesystem.entries(directory):
                bench.filesystem.remove_directory(directory)
                put(bench.filesystem, directory, b"a file")
        bench.reopen(NO_TID)
        found = list(bench.home.findings())
        assert {finding.kind for finding in found} <= {"foreign", "unreadable"}
        assert found != [] or bench.format is Format.FLAT


class Locked(MemoryFilesystem):
    """A filesystem that does not let one directory be listed."""

    locked = ""

    def entries(self, path):
        if path == self.locked:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return super().entries(path)


@pytest.mark.parametrize(("history", "format"), COMBINATIONS)
def test_a_directory_that_cannot_be_read_is_reported_and_the_others_are_read(history, format):
    bench = Bench(Locked(), history, format)
    bench.past.write({1: b"one", 2**40: b"far"})
    bench.apply()
    places = {f"{PLACE}/{name}".rpartition("/")[0] for name in bench.files()}
    for place in places | {PLACE}:
        bench.filesystem.locked = place
        assert [(found.kind, found.path) for found in bench.home.findings()] == [("unreadable", place)]
    nested = sorted(places - {PLACE})
    if bench.format is not Format.FLAT:
        put(bench.filesystem, f"{nested[-1]}/junk", b"x")
        bench.filesystem.locked = nested[0]
        assert {found.path for found in bench.home.findings()} == {nested[0], f"{nested[-1]}/junk"}


class TestPointers:
    """What is wrong among the files of one object, in the formats that have several."""

    @pytest.fixture(params=[layout for layout in Format if layout is not Format.SEGMENTED])
    def full(self, request):
        bench = Bench(MemoryFilesystem(), History.FULL, request.param)
        bench.past.write({1: b"one"})
        bench.past.write({1: b"two"})
        bench.apply()
        return bench

    def named(self, bench, ending):
        return next(f"{bench.path}/{name}" for name in bench.files() if name.endswith(ending))

    def test_a_current_serial_that_leads_nowhere(self, full):
        path = self.named(full, ".c")
        full.filesystem.unlink(self.named(full, f".{full.past.last.hex()}"))
        with pytest.raises(CorruptionError, match="missing"):
            full.home.load(oid_from(1), MAX_TID)
        with pytest.raises(CorruptionError, match="missing"):
            list(full.home.summaries(oid_from(1)))
        assert [(found.kind, found.path) for found in full.home.findings()] == [("pointer", path)]

    def test_revisions_that_nothing_leads_to(self, full):
        full.filesystem.unlink(self.named(full, ".c"))
        assert full.home.load(oid_from(1), MAX_TID) is full.home.current(oid_from(1)) is None
        assert list(full.home.oids()) == [oid_from(1)]
        assert [found.kind for found in full.home.findings()] == ["pointer", "pointer"]
        full.home.remove([Removal(oid_from(1), (), whole=True)])
        assert list(full.home.oids()) == []

    def test_a_temporary_file_is_reported_as_left_over(self, full):
        path = self.named(full, ".c") + ".tmp"
        put(full.filesystem, path, b"half")
        assert [(found.kind, found.path) for found in full.home.findings()] == [("leftover", path)]
        full.past.write({1: b"three"})
        full.apply()
        full.agree()
        assert list(full.home.findings()) == []

    def test_files_of_the_other_history_mode_are_foreign(self, full):
        path = self.named(full, ".c").removesuffix(".c") + ".d"
        put(full.filesystem, path, b"x")
        assert [(found.kind, found.path) for found in full.home.findings()] == [("foreign", path)]


def test_a_damaged_revision_does_not_keep_a_newer_one_from_replacing_it():
    for layout in (found for found in Format if found is not Format.SEGMENTED):
        bench = Bench(MemoryFilesystem(), History.MINIMAL, layout)
        bench.past.write({1: b"old"})
        bench.apply()
        put(bench.filesystem, f"{PLACE}/{next(iter(bench.files()))}", b"damaged")
        bench.past.write({1: b"new"})
        bench.apply()
        assert bench.home.load(oid_from(1), MAX_TID).data == b"new"


# --- names -------------------------------------------------------------------------------------------

PAGE = Path(__file__).parent.parent / "docs" / "format" / "home.md"


def files_in_the_page():
    """What the page shows of each home: history mode, format, and the names of the files."""
    block = re.search(r"in a home that holds nothing else:\n\n```text\n(.*?)```", PAGE.read_text(), re.DOTALL)
    shown = {}
    for line in block[1].splitlines():
        *kind, name = line.split() or [None]
        if name is None:
            continue
        if kind:
            last = shown[tuple(kind)] = set()
        last.add(name)
    return shown


@pytest.mark.parametrize(("history", "format"), COMBINATIONS)
def test_the_files_of_each_home_are_those_that_its_page_shows(history, format):
    bench = Bench(MemoryFilesystem(), history, format)
    bench.past.write({0x10203: b"x"})
    bench.apply()
    assert bench.past.last.hex() == "03f0000000000001"
    assert bench.files() == files_in_the_page()[history, format]
    assert len(files_in_the_page()) == len(COMBINATIONS)

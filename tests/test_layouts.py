"""The names in a store: what is built is parsed, and nothing else is."""

from __future__ import annotations

import pytest
from formatted import SECOND
from hypothesis import given
from hypothesis import strategies as st

from objstore.contracts import Format
from objstore.formats import layouts
from objstore.ids import Oid, Tid

IDENTITIES = st.binary(min_size=8, max_size=8)
OIDS = IDENTITIES.map(Oid)
TIDS = IDENTITIES.map(Tid)
_HEX = "[0-9a-f]{16}"
NEARLY = st.sampled_from(
    [
        *(f"working_{_HEX}_{_HEX}_done", f"working_{_HEX}_temp", f"spare_{_HEX}"),
        *(f"(flushed|packed|oids|other)_{_HEX}", f"{_HEX}-{_HEX}\\.[0-9]{{1,3}}\\.seg"),
        *(f"o{_HEX}\\.c", f"o{_HEX}\\.{_HEX}", f"o{_HEX}\\.d", f"t{_HEX}"),
    ]
).flatmap(st.from_regex)
"""Names that contain one of ours, with other things around it or not."""
NAMES = NEARLY | st.text(max_size=40)


def name_of(meant: object) -> str:
    """The name that has this meaning."""
    match meant:
        case layouts.DoneName(tid, previous):
            return layouts.done_name(tid, previous)
        case layouts.TempName(token):
            return layouts.temp_name(token)
        case layouts.SpareName(token):
            return layouts.spare_name(token)
        case layouts.CurrentName(oid):
            return layouts.current_name(oid)
        case layouts.RevisionName(oid, tid):
            return layouts.revision_name(oid, tid)
        case layouts.DataName(oid):
            return layouts.data_name(oid)
        case layouts.TransactionName(tid):
            return layouts.transaction_name(tid)
        case layouts.SegmentName():
            return str(meant)
        case (str() as kind, bytes() as value):
            return layouts.mark_name(kind, value)
    raise AssertionError(meant)


PARSERS = {
    layouts.parse_journal_name: [layouts.DoneName, layouts.TempName, layouts.SpareName],
    layouts.parse_home_name: [
        layouts.CurrentName,
        layouts.RevisionName,
        layouts.DataName,
        layouts.TransactionName,
    ],
    layouts.parse_segment_name: [layouts.SegmentName],
    layouts.parse_mark_name: [tuple],
}
BUILT = st.one_of(
    st.builds(layouts.DoneName, TIDS, TIDS),
    st.builds(layouts.TempName, IDENTITIES),
    st.builds(layouts.SpareName, IDENTITIES),
    st.builds(layouts.CurrentName, OIDS),
    st.builds(layouts.RevisionName, OIDS, TIDS),
    st.builds(layouts.DataName, OIDS),
    st.builds(layouts.TransactionName, TIDS),
    st.builds(layouts.SegmentName, TIDS, TIDS, st.integers(0, 10**9)).filter(lambda name: name.first <= name.last),
    st.tuples(st.sampled_from(["flushed", "packed", "oids"]), IDENTITIES),
)


class TestNames:
    @given(BUILT)
    def test_every_name_that_is_built_is_parsed_by_its_parser_only(self, meant):
        name = name_of(meant)
        for parse, kinds in PARSERS.items():
            assert parse(name) == (meant if type(meant) in kinds else None)
            assert parse(name + layouts.TEMPORARY) is None

    @given(NAMES)
    def test_what_is_parsed_is_what_would_be_built(self, name):
        """So a foreign name is never taken for one of ours: an editor's backup, a copy, another spelling."""
        for parse in PARSERS:
            meant = parse(name)
            assert meant is None or name_of(meant) == name

    @pytest.mark.parametrize(
        "name",
        [
            *("", ".", "..", "t", "lost+found", ".nfs000000000000000100000001", "t0000000000000001~", "core"),
            *("o0000000000000001", "o0000000000000001.", "o0000000000000001.C", "O0000000000000001.c"),
            *("o000000000000000A.c", "o000000000000001.c", "o0000000000000001.d\n", "to0000000000000001.d"),
            *("0000000000000001-0000000000000002.00.seg", "0000000000000001-0000000000000002.-1.seg"),
            *("0000000000000002-0000000000000001.0.seg", "0000000000000001-0000000000000002.\u0663.seg"),
            *("other_0000000000000001", "flushed_000000000000001", "working_0000000000000001_done"),
        ],
    )
    def test_foreign_names_mean_nothing(self, name):
        assert [parse(name) for parse in PARSERS] == [None] * len(PARSERS)

    @given(OIDS, TIDS, OIDS, TIDS)
    def test_each_file_of_a_home_has_a_place_of_its_own(self, oid, tid, other_oid, other_tid):
        for layout in Format:
            first, second = (
                f"{layouts.object_directory(layout, found)}/{layouts.revision_name(found, at)}"
                for found, at in ((oid, tid), (other_oid, other_tid))
            )
            assert (first == second) == ((oid, tid) == (other_oid, other_tid))
            details = f"{layouts.transaction_directory(layout, tid)}/{layouts.transaction_name(tid)}"
            assert details not in (first, second)

    @given(TIDS, TIDS)
    def test_directories_of_transactions_sort_as_tids_do(self, tid, other):
        """Walking them newest first gives the transactions newest first."""
        earlier, later = sorted((tid, other))
        for layout in (Format.BUSHY, Format.CHUNKY, Format.LAWN, Format.FLAT):
            paths = [
                [*layouts.transaction_directory(layout, found).split("/"), layouts.transaction_name(found)]
                for found in (earlier, later)
            ]
            assert paths == sorted(paths)

    @pytest.mark.parametrize(
        ("format", "objects", "details"),
        [
            (Format.SEGMENTED, "0102030405/06", "t"),
            (Format.BUSHY, "o/01/02/03/04/05/06/07", "t/03/f0/00/01"),
            (Format.CHUNKY, "o/010203040506", "t/03f00/001"),
            (Format.LAWN, "o0102030405060708", ""),
            (Format.FLAT, "", ""),
        ],
    )
    def test_the_directories_of_each_format(self, format, objects, details):
        assert layouts.object_directory(format, Oid(bytes(range(1, 9)))) == objects
        assert layouts.transaction_directory(format, SECOND) == details

    @given(st.lists(st.builds(layouts.SegmentName, TIDS, TIDS, st.integers(0, 3)), min_size=3, max_size=3))
    def test_replacing_is_an_order(self, names):
        """So there is always one that nothing replaces, and a chain of merges leaves no one behind."""
        a, b, c = names
        assert not a.replaces(a)
        assert not (a.replaces(b) and b.replaces(a))
        assert not (a.replaces(b) and b.replaces(c)) or a.replaces(c)

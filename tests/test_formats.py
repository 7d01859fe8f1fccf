"""The codecs: what is written is read back, every damaged byte is noticed, and the formats hold still.

The golden files are compared with what the codecs write, byte for byte. A difference there is a change of the
format: it needs a new version number, and the pages in `docs/format` say so first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from objstore.contracts import Format, History
from objstore.engine.full import FullHome
from objstore.engine.journal import BLOCK, Journal
from objstore.errors import CorruptionError, FormatVersionError, RecordTooLargeError
from objstore.formats import layouts, records, segments, transactions
from objstore.formats.segments import Kind, Segment, SegmentWriter
from objstore.formats.settings import Settings, decode_settings
from objstore.formats.transactions import decode_details, encode_details
from objstore.ids import NO_TID, Oid, Tid, number, oid_from, pack_oids, tid_from
from objstore.machine.memory import MemoryFilesystem
from objstore.revisions import Details, Revision, Transaction

TOP = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden"
MASKS = (0x01, 0x80, 0xFF)

IDENTITIES = st.binary(min_size=8, max_size=8)
OIDS = IDENTITIES.map(Oid)
TIDS = IDENTITIES.map(Tid)
REFERENCES = st.none() | st.lists(OIDS, max_size=5).map(pack_oids)
REVISIONS = st.builds(
    Revision, OIDS, TIDS, TIDS, st.none() | st.binary(max_size=200), REFERENCES, copied_from=st.none() | TIDS
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
DETAILS = st.builds(Details, TEXTS, TEXTS, st.binary(max_size=50))
TRANSACTIONS = st.builds(Transaction, TIDS, TIDS, DETAILS, st.lists(OIDS, max_size=5).map(tuple))


# --- fixed values ------------------------------------------------------------------------------------

TOKEN = bytes.fromhex("a1b2c3d400000001")
FIRST, SECOND = tid_from(0x03F0_0000_1111_1111), tid_from(0x03F0_0001_2222_2222)
TWO = pack_oids([oid_from(7), oid_from(9)])
RECORD = Revision(oid_from(0x1_0203), SECOND, FIRST, b"a pickle, two pickles", TWO)
DELETED = Revision(oid_from(0x1_0203), SECOND, FIRST, None, None)
COPIED = Revision(oid_from(0x1_FFFF), SECOND, FIRST, b"as it was", b"", copied_from=FIRST)
EMPTY = Revision(oid_from(1), SECOND, NO_TID, b"", None)
BY_ADA = Transaction(SECOND, FIRST, Details("ada", "näht", b'{"a": 1}'), (oid_from(0x1_0203), oid_from(0x1_FFFF)))
SETTINGS = Settings(History.FULL, Format.SEGMENTED, "6f1d1c1e-5a86-4d3c-9a58-0c8a8f2b7a10")
EXAMPLES = [RECORD, DELETED, COPIED, EMPTY]


def journal_file(revisions: list[Revision], details: Details) -> tuple[MemoryFilesystem, Journal, str]:
    """A journal with one committed transaction, and the path of its file."""
    filesystem = MemoryFilesystem()
    journal = Journal(filesystem, "")
    waiting = journal.commit(journal.write(TOKEN, FIRST, details, revisions), SECOND, FIRST)
    return filesystem, journal, f"{waiting.path}/t"


def segment_bytes(kind: Kind, bucket: int, entries: list[tuple[int, int, bytes]], first: Tid, last: Tid) -> bytes:
    filesystem = MemoryFilesystem()
    with filesystem.create("/s") as file:
        writer = SegmentWriter(file, kind, bucket)
        for entry in entries:
            writer.add(*entry)
        size = writer.finish(first, last)
    content = filesystem.read("/s")
    assert len(content) == size
    return content


def revision_segment() -> bytes:
    older = replace(RECORD, tid=FIRST, previous=NO_TID, data=b"odd")
    entries = [
        (segments.low_of(revision.oid), number(revision.tid), records.encode(revision))
        for revision in (older, RECORD, COPIED)
    ]
    return segment_bytes(Kind.REVISIONS, 1, entries, FIRST, SECOND)


def details_segment() -> bytes:
    before = replace(BY_ADA, tid=FIRST, previous=NO_TID)
    entries = [(0, number(found.tid), encode_details(found)) for found in (before, BY_ADA)]
    return segment_bytes(Kind.DETAILS, 0, entries, FIRST, SECOND)


def damaged(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The content with each single byte changed, in several ways."""
    for at, mask in product(range(len(content)), MASKS):
        changed = bytearray(content)
        changed[at] ^= mask
        yield at, bytes(changed)


def put(filesystem: MemoryFilesystem, path: str, content: bytes) -> None:
    if filesystem.exists(path):
        filesystem.unlink(path)
    with filesystem.create(path) as file:
        file.write(content)


# --- records -----------------------------------------------------------------------------------------


class TestRecords:
    @given(REVISIONS, st.binary(max_size=20), st.binary(max_size=20))
    def test_what_is_written_is_read(self, revision, before, after):
        encoded = records.encode(revision)
        buffer = before + encoded + after
        assert records.decode(buffer, len(before)) == revision
        assert records.decode(memoryview(buffer), len(before)) == revision
        assert records.Header(buffer, len(before), "p").size == len(encoded)

    @given(REVISIONS)
    def test_the_summary_needs_no_data(self, revision):
        encoded = records.encode(revision)
        header = records.Header(encoded, 0, "p")
        summary = header.summary(encoded[: header.summary_size], 0, "p")
        assert (summary.oid, summary.tid, summary.previous) == (revision.oid, revision.tid, revision.previous)
        assert (summary.references, summary.copied_from) == (revision.references, revision.copied_from)
        assert (summary.size, summary.deleted) == (len(revision.data or b""), revision.data is None)

    @given(REVISIONS, TIDS)
    def test_another_tid_changes_the_tid_only(self, revision, tid):
        assert records.decode(records.encode(revision, tid)) == replace(revision, tid=tid)

    @pytest.mark.parametrize("revision", EXAMPLES)
    def test_every_damaged_byte_is_noticed(self, revision):
        for _, content in damaged(records.encode(revision)):
            with pytest.raises(CorruptionError):
                records.decode(content)

    @pytest.mark.parametrize("revision", EXAMPLES)
    def test_every_damaged_byte_before_the_data_is_noticed_by_a_summary(self, revision):
        """A pack follows the references that summaries tell: one that is wrong would lose live objects."""
        encoded = records.encode(revision)
        for at, content in damaged(encoded):
            if at < len(encoded) - len(revision.data or b""):
                with pytest.raises(CorruptionError):
                    records.Header(content, 0, "p").summary(content, 0, "p")

    @pytest.mark.parametrize("revision", EXAMPLES)
    def test_a_record_that_is_cut_off_is_noticed(self, revision):
        encoded = records.encode(revision)
        for length in range(len(encoded)):
            with pytest.raises(CorruptionError):
                records.decode(encoded[:length])
            with pytest.raises(CorruptionError):
                records.decode(encoded + encoded[:length], len(encoded))

    @given(st.binary(max_size=120))
    def test_noise_is_no_record(self, noise):
        with pytest.raises(CorruptionError):
            records.decode(noise)

    def test_another_version_is_named(self):
        encoded = bytearray(records.encode(RECORD))
        encoded[2] = 9
        with pytest.raises(CorruptionError, match="record version 9"):
            records.decode(bytes(encoded))

    def test_damage_says_where(self):
        encoded = records.encode(RECORD)
        content = b"1234" + encoded[:-1] + b"!"
        with pytest.raises(CorruptionError) as caught:
            records.decode(content, 4, "/some/file")
        error = caught.value
        assert (error.path, error.offset, error.oid, error.tid) == ("/some/file", 4, RECORD.oid, RECORD.tid)

    def test_a_record_past_the_limit_is_refused(self, monkeypatch):
        """py-lmdb 2.3.0: writes over 2 GiB. Here the limit is that of the field."""
        monkeypatch.setattr(records, "MAX_DATA", 100)
        records.encode(replace(RECORD, data=bytes(100)))
        with pytest.raises(RecordTooLargeError) as caught:
            records.encode(replace(RECORD, data=bytes(101)))
        assert (caught.value.oid, caught.value.size, caught.value.limit) == (RECORD.oid, 101, 100)


# --- transactions ------------------------------------------------------------------------------------


class TestDetails:
    @given(TRANSACTIONS)
    def test_what_is_written_is_read(self, transaction):
        assert decode_details(encode_details(transaction)) == transaction

    def test_every_damaged_byte_is_noticed(self):
        for _, content in damaged(encode_details(BY_ADA)):
            with pytest.raises(CorruptionError):
                decode_details(content)

    def test_another_length_is_noticed(self):
        encoded = encode_details(BY_ADA)
        for content in [encoded[:length] for length in range(len(encoded))] + [encoded + b"\0"]:
            with pytest.raises(CorruptionError):
                decode_details(content)

    @given(st.binary(max_size=120))
    def test_noise_is_no_transaction(self, noise):
        with pytest.raises(CorruptionError):
            decode_details(noise)

    def test_another_version_is_named(self):
        encoded = bytearray(encode_details(BY_ADA))
        encoded[2] = 9
        with pytest.raises(CorruptionError, match="transaction version 9"):
            decode_details(bytes(encoded))


class TestJournalFiles:
    @given(st.lists(REVISIONS, max_size=4, unique_by=lambda revision: revision.oid), DETAILS)
    def test_what_is_written_is_read(self, revisions, details):
        _, journal, _ = journal_file(revisions, details)
        waiting = journal.adopt(layouts.DoneName(SECOND, FIRST))
        oids = tuple(revision.oid for revision in revisions)
        assert waiting.transaction == Transaction(SECOND, FIRST, details, oids)
        assert waiting.header.token == TOKEN
        assert waiting.header.durable == FIRST
        assert journal.revisions(waiting) == [replace(revision, tid=SECOND) for revision in revisions]
        for revision, place in zip(revisions, waiting.places, strict=True):
            assert journal.revision(waiting, revision.oid, place) == replace(revision, tid=SECOND)
            assert journal.summary(waiting, revision.oid, place).references == revision.references

    def read(self, journal):
        waiting = journal.adopt(layouts.DoneName(SECOND, FIRST))
        return waiting.transaction, journal.revisions(waiting)

    def test_every_damaged_byte_is_noticed_and_the_padding_means_nothing(self):
        filesystem, journal, path = journal_file([RECORD, COPIED], BY_ADA.details)
        whole, content = self.read(journal), filesystem.read(path)
        end = transactions.decode_header(content).end
        assert len(content) % BLOCK == 0
        assert not any(content[end:])
        for _, changed in damaged(content[:end]):
            put(filesystem, path, changed + content[end:])
            with pytest.raises(CorruptionError):
                self.read(journal)
        put(filesystem, path, content[:end] + b"what a longer transaction left")
        assert self.read(journal) == whole

    def test_a_file_that_is_cut_off_is_noticed(self):
        filesystem, journal, path = journal_file([RECORD, COPIED], BY_ADA.details)
        content = filesystem.read(path)
        end = transactions.decode_header(content).end
        for length in range(end):
            put(filesystem, path, content[:length])
            with pytest.raises(CorruptionError):
                self.read(journal)
        put(filesystem, path, content[:end])
        assert self.read(journal)[0].details == BY_ADA.details

    @pytest.mark.parametrize("other", [{"token": b"another!"}, {"count": 3}, {"tail": 60}])
    def test_a_header_that_does_not_fit_is_noticed(self, other):
        filesystem, journal, path = journal_file([RECORD, COPIED], BY_ADA.details)
        content = filesystem.read(path)
        header = replace(transactions.decode_header(content), **other)
        put(filesystem, path, header.encode() + content[transactions.FILE_HEADER_SIZE :])
        with pytest.raises(CorruptionError):
            self.read(journal)


# --- segments ----------------------------------------------------------------------------------------

LOWS = st.sampled_from([0, 1, 255, 256, 257, 0x7F00, 0xFEFF, 0xFF00, 0xFFFF]) | st.integers(0, 0xFFFF)
KEYS = st.lists(st.tuples(LOWS, st.integers(0, 6) | st.integers(0, 2**64 - 1)), unique=True, max_size=40)


class TestSegments:
    @given(KEYS, st.integers(0, 2**48 - 1))
    def test_what_is_written_is_found(self, keys, bucket):
        entries = [(low, tid, f"{low} {tid}".encode()) for low, tid in sorted(keys)]
        content = segment_bytes(Kind.REVISIONS, bucket, entries, FIRST, SECOND)
        segment = Segment("p", memoryview(content))
        assert (segment.first, segment.last, segment.footer.bucket) == (FIRST, SECOND, bucket)
        assert (len(segment), segment.size) == (len(keys), len(content))
        assert segment.lows() == {low for low, _ in keys}
        for at, (low, tid, entry) in enumerate(entries):
            assert (segment.low(at), segment.tid(at), bytes(segment.entry(at))) == (low, tid_from(tid), entry)
        for low in {low for low, _ in keys} | {0, 128, 0xFFFF}:
            mine = [tid for other, tid in sorted(keys) if other == low]
            assert [segment.tids[at] for at in segment.run(low)] == mine
            for upto in {0, 3, 2**63 - 1, 2**64 - 1, *mine, *(tid - 1 for tid in mine if tid)}:
                expected = max((tid for tid in mine if tid <= upto), default=None)
                at = segment.find(low, upto)
                assert (segment.tids[at] if at >= 0 else None) == expected
                assert at < 0 or segment.low(at) == low

    @given(st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=30), st.integers(0, 2**64 - 1))
    def test_transactions_are_found(self, tids, upto):
        entries = [(0, tid, str(tid).encode()) for tid in sorted(tids)]
        segment = Segment("p", memoryview(segment_bytes(Kind.DETAILS, 0, entries, FIRST, SECOND)))
        at = segment.find_tid(upto)
        assert (segment.tids[at] if at >= 0 else None) == max((tid for tid in tids if tid <= upto), default=None)

    def test_a_large_segment_is_written_in_parts(self):
        entries = [(low, 1, bytes([low & 255]) * 999) for low in range(0, 65536, 16)]
        segment = Segment("p", memoryview(segment_bytes(Kind.REVISIONS, 7, entries, FIRST, SECOND)))
        assert all(bytes(segment.entry(segment.find(low, 1))) == entry for low, _, entry in entries)
        assert segment.find(8, 1) == -1

    def test_oids_at_the_edges_of_buckets(self):
        for value in (0, 1, 65535, 65536, 65537, 2**32 - 1, 2**63, 2**64 - 1):
            oid = oid_from(value)
            assert segments.oid_in(segments.bucket_of(oid), segments.low_of(oid)) == oid
            assert segments.bucket_of(oid) == value // 65536

    def entries(self, content: bytes) -> list[object]:
        """All that a segment holds, decoded; by position and as a lookup finds it."""
        segment = Segment("p", memoryview(content))
        if segment.footer.kind is Kind.DETAILS:
            return [(segment.tid(at), decode_details(bytes(segment.entry(at)))) for at in range(len(segment))]
        return [
            (segment.low(at), segment.tid(at), records.decode(segment.buffer, segment.offset(at), "p"))
            for at in range(len(segment))
        ]

    @pytest.mark.parametrize("build", [revision_segment, details_segment])
    def test_every_damaged_byte_is_noticed_or_is_padding(self, build):
        content = build()
        whole = self.entries(content)
        segment = Segment("p", memoryview(content))
        padding = range(sum(len(segment.entry(at)) for at in range(len(segment))), segment.footer.index_at)
        assert len(padding) < 8
        for at, changed in damaged(content):
            if at in padding:
                assert self.entries(changed) == whole
            else:
                with pytest.raises(CorruptionError):
                    self.entries(changed)

    @pytest.mark.parametrize("build", [revision_segment, details_segment])
    def test_another_length_is_noticed(self, build):
        content = build()
        for changed in [content[:length] for length in range(len(content))] + [content + b"\0"]:
            with pytest.raises(CorruptionError):
                Segment("p", memoryview(changed))

    @pytest.mark.parametrize("kind", [0, 3, 255])
    def test_a_kind_that_is_not_known_is_noticed(self, kind):
        segment = Segment("p", memoryview(revision_segment()))
        content = bytes(segment.buffer[: -segments.FOOTER_SIZE]) + replace(segment.footer, kind=kind).encode()
        with pytest.raises(CorruptionError, match=f"kind {kind}"):
            Segment("p", memoryview(content))

    def test_another_version_is_named(self):
        content = bytearray(revision_segment())
        content[-segments.FOOTER_SIZE + 2] = 9
        with pytest.raises(CorruptionError, match="segment version 9"):
            Segment("p", memoryview(content))


# --- settings ----------------------------------------------------------------------------------------


class TestSettings:
    @pytest.mark.parametrize(("history", "format"), list(product(History, Format)))
    def test_what_is_written_is_read(self, history, format):
        chosen = Settings(history, format, SETTINGS.identity)
        assert decode_settings(chosen.encode(), "p") == chosen

    def test_damaged_settings_raise_our_errors_or_are_settings(self):
        """They carry no checksum, so that people may read and mend them."""
        for _, content in damaged(SETTINGS.encode()):
            try:
                found = decode_settings(content, "p")
            except (CorruptionError, FormatVersionError):
                continue
            assert (found.history, found.format) == (SETTINGS.history, SETTINGS.format)

    def test_settings_that_are_cut_off_are_noticed(self):
        encoded = SETTINGS.encode()
        for length in range(len(encoded) - 1):
            with pytest.raises(CorruptionError):
                decode_settings(encoded[:length], "p")

    @pytest.mark.parametrize("version", ["0", "2", '"1"'])
    def test_another_version_says_what_to_do(self, version):
        content = SETTINGS.encode().replace(b"format_version = 1", f"format_version = {version}".encode())
        with pytest.raises(FormatVersionError, match="use the one that wrote it"):
            decode_settings(content, "p")

    @pytest.mark.parametrize("line", ['history = "half"', "history = [1]", "history = {}", 'format = "tidy"', ""])
    def test_settings_that_are_not_whole_are_noticed(self, line):
        content = "\n".join(("format_version = 1", 'identity = "i"', line)).encode()
        with pytest.raises(CorruptionError):
            decode_settings(content, "p")


# --- names -------------------------------------------------------------------------------------------

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


# --- golden files ------------------------------------------------------------------------------------


def golden_journal() -> bytes:
    filesystem, _, path = journal_file([RECORD, COPIED], BY_ADA.details)
    content = filesystem.read(path)
    return content[: transactions.decode_header(content).end]


def golden_current() -> bytes:
    filesystem = MemoryFilesystem()
    FullHome(filesystem, "", Format.FLAT).apply([(BY_ADA, [RECORD])])
    return filesystem.read(f"/{layouts.current_name(RECORD.oid)}")


GOLDEN_FILES = {
    "record.bin": lambda: records.encode(RECORD),
    "record-deleted.bin": lambda: records.encode(DELETED),
    "record-copied.bin": lambda: records.encode(COPIED),
    "details.bin": lambda: encode_details(BY_ADA),
    "journal.bin": golden_journal,
    "current.bin": golden_current,
    "segment-revisions.bin": revision_segment,
    "segment-details.bin": details_segment,
    "settings.toml": SETTINGS.encode,
}


class TestGolden:
    @pytest.mark.parametrize("name", GOLDEN_FILES)
    def test_what_is_written_holds_still(self, name):
        assert GOLDEN_FILES[name]().hex(" ", 8) == (GOLDEN / name).read_bytes().hex(" ", 8)

    def test_every_golden_file_is_used(self):
        assert {path.name for path in GOLDEN.iterdir()} == set(GOLDEN_FILES)

    @pytest.mark.parametrize(
        ("name", "revision"),
        [("record.bin", RECORD), ("record-deleted.bin", DELETED), ("record-copied.bin", COPIED)],
    )
    def test_records(self, name, revision):
        assert records.decode((GOLDEN / name).read_bytes()) == revision

    def test_details(self):
        assert decode_details((GOLDEN / "details.bin").read_bytes()) == BY_ADA

    def test_a_journal_file(self):
        filesystem = MemoryFilesystem()
        journal = Journal(filesystem, "")
        name = layouts.DoneName(SECOND, FIRST)
        filesystem.make_directory(f"/{name_of(name)}")
        put(filesystem, f"/{name_of(name)}/t", (GOLDEN / "journal.bin").read_bytes())
        waiting = journal.adopt(name)
        assert waiting.transaction == BY_ADA
        assert journal.revisions(waiting) == [RECORD, COPIED]

    def test_a_current_serial(self):
        assert (GOLDEN / "current.bin").read_bytes() == SECOND

    def test_a_segment_of_revisions(self):
        segment = Segment("p", memoryview((GOLDEN / "segment-revisions.bin").read_bytes()))
        low = segments.low_of(RECORD.oid)
        assert records.decode(segment.buffer, segment.offset(segment.find(low, 2**63)), "p") == RECORD
        assert segment.tid(segment.find(low, number(SECOND) - 1)) == FIRST
        assert records.decode(segment.buffer, segment.offset(2), "p") == COPIED

    def test_a_segment_of_details(self):
        segment = Segment("p", memoryview((GOLDEN / "segment-details.bin").read_bytes()))
        assert decode_details(bytes(segment.entry(segment.find_tid(number(SECOND))))) == BY_ADA

    def test_settings(self):
        assert decode_settings((GOLDEN / "settings.toml").read_bytes(), "p") == SETTINGS

"""The codecs: what is written is read back, and every damaged byte is noticed."""

from __future__ import annotations

from itertools import product

import pytest
from formatted import (
    BY_ADA,
    COPIED,
    EXAMPLES,
    FIRST,
    RECORD,
    SECOND,
    SETTINGS,
    TOKEN,
    add,
    adopted,
    damaged,
    details_segment,
    journal_file,
    put,
    revision_segment,
    segment_bytes,
)
from hypothesis import given
from hypothesis import strategies as st

from objstore.contracts import Format, History
from objstore.engine.drafts import BLOCK
from objstore.engine.journal import Journal
from objstore.errors import CorruptionError, FormatVersionError, RecordTooLargeError
from objstore.formats import records, segments, transactions
from objstore.formats.segments import Kind, Segment
from objstore.formats.settings import Settings, decode_settings
from objstore.formats.transactions import decode_details, encode_details
from objstore.ids import Oid, Tid, oid_from, pack_oids, tid_from
from objstore.machine.memory import MemoryFilesystem
from objstore.revisions import BlobFacts, Details, Revision, Transaction

IDENTITIES = st.binary(min_size=8, max_size=8)
OIDS = IDENTITIES.map(Oid)
TIDS = IDENTITIES.map(Tid)
REFERENCES = st.none() | st.lists(OIDS, max_size=5).map(pack_oids)
BLOBS = st.none() | st.builds(BlobFacts, st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
DATA = st.none() | st.binary(max_size=200)
REVISIONS = st.builds(Revision, OIDS, TIDS, TIDS, DATA, REFERENCES, st.none() | TIDS, BLOBS)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
DETAILS = st.builds(Details, TEXTS, TEXTS, st.binary(max_size=50))
TRANSACTIONS = st.builds(Transaction, TIDS, TIDS, DETAILS, st.lists(OIDS, max_size=5).map(tuple))


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
        assert records.decode(records.encode(revision, tid)) == revision._replace(tid=tid)

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
        records.encode(RECORD._replace(data=bytes(100)))
        with pytest.raises(RecordTooLargeError) as caught:
            records.encode(RECORD._replace(data=bytes(101)))
        assert (caught.value.oid, caught.value.size, caught.value.limit) == (RECORD.oid, 101, 100)


# --- transactions ------------------------------------------------------------------------------------


class TestDetails:
    def test_a_transaction_is_shown_without_its_oids(self):
        """There may be a million of them, and errors show it."""
        shown = repr(BY_ADA._replace(oids=(oid_from(0xABCDEF),) * 1000))
        assert repr(BY_ADA.tid) in shown
        assert len(shown) < 500

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
        waiting = adopted(journal)
        oids = tuple(revision.oid for revision in revisions)
        assert waiting.transaction == Transaction(SECOND, FIRST, details, oids)
        assert (waiting.header.token, waiting.header.tid, waiting.header.previous) == (TOKEN, SECOND, FIRST)
        assert waiting.header.durable == FIRST
        assert journal.revisions(waiting) == [revision._replace(tid=SECOND) for revision in revisions]
        for at, revision in enumerate(revisions):
            assert journal.revision(waiting, at) == revision._replace(tid=SECOND)
            assert journal.summary(waiting, at).references == revision.references

    def read(self, journal):
        waiting = adopted(journal)
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

    @given(st.lists(REVISIONS, max_size=9), st.lists(st.integers(0, 8), max_size=2), DETAILS)
    def test_a_record_that_was_replaced_does_not_count(self, revisions, completions, details):
        filesystem = MemoryFilesystem()
        journal = Journal(filesystem, "")
        draft = journal.begin(TOKEN, details)
        for at, revision in enumerate(revisions):
            add(draft, revision)
            assert draft.read(revision.oid) == revision._replace(tid=Tid(TOKEN))
            if at in completions:
                draft.complete()
        draft.complete()
        journal.name(draft, SECOND, FIRST)
        waiting = journal.commit(draft, details, SECOND, FIRST, FIRST)
        newest = {revision.oid: revision._replace(tid=SECOND) for revision in revisions}
        again = adopted(journal)
        assert again.transaction == waiting.transaction
        assert (list(again.offsets), list(again.sizes)) == (list(waiting.offsets), list(waiting.sizes))
        assert set(again.transaction.oids) == newest.keys()
        assert {revision.oid: revision for revision in journal.revisions(again)} == newest

    @pytest.mark.parametrize("other", [{"token": b"another!"}, {"records": 3}, {"tail": 60}])
    def test_a_header_that_does_not_fit_is_noticed(self, other):
        filesystem, journal, path = journal_file([RECORD, COPIED], BY_ADA.details)
        content = filesystem.read(path)
        header = transactions.decode_header(content)._replace(**other)
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
        content = bytes(segment.buffer[: -segments.FOOTER_SIZE]) + segment.footer._replace(kind=kind).encode()
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

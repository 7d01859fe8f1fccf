"""What a pack tells from the segments of a bucket: the same as looking at one object after the other."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from objstore.engine.sweeping import Terms, kept, outlined, planned
from objstore.errors import CorruptionError
from objstore.formats import records
from objstore.formats.segments import Kind, Segment, SegmentWriter, oid_in
from objstore.ids import NO_TID, number, oid_from, oid_numbers, pack_oids, tid_from
from objstore.machine.memory import MemoryFilesystem
from objstore.revisions import Revision, RevisionSummary
from objstore.upkeep.byobject import divided

BUCKET = 3
LOWS = st.sampled_from([0, 1, 2, 255, 256, 65_535])
PASTS = st.lists(st.sets(LOWS, min_size=1), min_size=1, max_size=12)
"""Which objects each transaction wrote."""
CUTS = st.sets(st.integers(1, 11), max_size=4)
"""After which transactions a segment ends."""
TERMS = st.builds(
    Terms,
    st.integers(0, 14).map(tid_from),
    st.frozensets(st.integers(9, 13).map(tid_from), max_size=2),
    st.booleans(),
)
DOOMED = st.frozensets(LOWS, max_size=3)


def record_of(low, tid, kind=0):
    """A revision, which refers to objects that its tid tells; some do not say so, or are something else."""
    references = pack_oids(oid_from(tid * 1_000 + at) for at in range(low % 3))
    copied = tid_from(tid - 1) if kind == 1 else None
    return Revision(oid_in(BUCKET, low), tid_from(tid), NO_TID, None if kind == 2 else b"data", references, copied)


def segments_of(past, cuts):
    """The segments of a bucket to which each transaction wrote some objects."""
    filesystem = MemoryFilesystem()
    edges = [0, *sorted(cut for cut in cuts if cut < len(past)), len(past)]
    made = []
    for start, end in pairwise(edges):
        path = f"/{start}"
        entries = sorted((low, tid + 1) for tid in range(start, end) for low in past[tid])
        with filesystem.create(path) as file:
            writer = SegmentWriter(file, Kind.REVISIONS, BUCKET)
            for low, tid in entries:
                writer.add(low, tid, records.encode(record_of(low, tid, (low + tid) % 5)))
            writer.finish(tid_from(start + 1), tid_from(end))
        made.append(Segment(path, filesystem.map(path)))
    return made


def summaries_of(past, low):
    """The revisions of an object, newest first."""
    return [
        RevisionSummary(oid_in(BUCKET, low), tid_from(at + 1), NO_TID, 4, deleted=False, references=b"")
        for at in reversed(range(len(past)))
        if low in past[at]
    ]


def keys_of(segment, mask, value):
    lows = segment.lows_of(0, len(segment))
    return {(low, tid) for low, tid, bit in zip(lows, segment.tids, mask, strict=True) if bit == value}


def kept_by_hand(past, terms):
    """What is kept where nothing is doomed."""
    return {
        (low, number(summary.tid))
        for low in set().union(*past)
        for summary in divided(summaries_of(past, low), terms.limit, terms.protected)[0]
    }


@given(PASTS, CUTS, TERMS, DOOMED)
def test_what_stays(past, cuts, terms, doomed):
    segments = segments_of(past, cuts)
    everything = {(low, at + 1) for at, lows in enumerate(past) for low in lows}
    stays = kept_by_hand(past, terms) if terms.full else everything
    expected = {(low, tid) for low, tid in stays if low not in doomed}
    masks = kept(segments, terms, doomed)
    found = set().union(*(keys_of(*pair, 1) for pair in zip(segments, masks, strict=True)))
    gone = set().union(*(keys_of(*pair, 0) for pair in zip(segments, masks, strict=True)))
    assert (found, gone) == (expected, everything - expected)

    plan = planned(segments, terms, doomed)
    assert plan.revisions == len(gone)
    assert plan.objects == len(doomed & {low for low, _ in everything})
    sizes = {key: len(records.encode(record_of(*key, sum(key) % 5))) for key in everything}
    assert plan.bytes == sum(sizes[key] for key in gone)
    limit = number(terms.limit)
    assert plan.tids == ({tid for _, tid in expected if tid <= limit} if terms.full else set())


@given(PASTS, CUTS, TERMS)
def test_what_is_referred_to(past, cuts, terms):
    outline = outlined(BUCKET, segments_of(past, cuts), terms)
    limit, protected = terms.limit, terms.protected
    assert outline.lows == set().union(*past)
    assert outline.roots == {
        low
        for low in outline.lows
        if any(found.tid > limit or found.tid in protected for found in summaries_of(past, low))
    }
    expected = {}
    for low, tid in kept_by_hand(past, terms):
        expected.setdefault(low, set()).update(oid_numbers(record_of(low, tid).references))
    for low in [*outline.lows, 7]:
        assert set(outline.targets([number(oid_in(BUCKET, low))])) == expected.get(low, set())
    everything = outline.targets([number(oid_in(BUCKET, low)) for low in outline.lows])
    assert set(everything) == set().union(*expected.values())
    assert outline.size >= 2**16 + 8 * len(everything)


@given(st.lists(st.integers(1, 400), min_size=1, max_size=50), st.data())
def test_what_is_chosen_from_a_segment(sizes, data):
    filesystem = MemoryFilesystem()
    with filesystem.create("/s") as file:
        writer = SegmentWriter(file, Kind.REVISIONS, 0)
        for at, size in enumerate(sizes):
            writer.add(at, 1, bytes([at]) * size)
        writer.finish(tid_from(1), tid_from(1))
    segment = Segment("/s", filesystem.map("/s"))
    mask = bytearray(data.draw(st.lists(st.booleans(), min_size=len(sizes), max_size=len(sizes))))
    with filesystem.create("/t") as file:
        writer = SegmentWriter(file, Kind.REVISIONS, 0)
        for stretch in segment.chosen(mask):
            writer.extend(stretch)
        writer.finish(tid_from(1), tid_from(1))
    chosen = Segment("/t", filesystem.map("/t"))
    stays = [at for at in range(len(sizes)) if mask[at]]
    assert list(chosen.lows_of(0, len(chosen))) == stays
    assert [bytes(entry) for entry in chosen.entries(0, len(chosen))] == [bytes([at]) * sizes[at] for at in stays]


class TestDamage:
    @pytest.mark.parametrize("at", range(0, records.HEADER_SIZE + 8, 3))
    def test_a_damaged_header_or_reference_is_noticed(self, at):
        filesystem = MemoryFilesystem()
        record = bytearray(records.encode(record_of(1, 1)))
        record[at] ^= 1
        with filesystem.create("/s") as file:
            writer = SegmentWriter(file, Kind.REVISIONS, BUCKET)
            writer.add(1, 1, record)
            writer.finish(tid_from(1), tid_from(1))
        segment = Segment("/s", filesystem.map("/s"))
        with pytest.raises(CorruptionError):
            outlined(BUCKET, [segment], Terms(tid_from(1), frozenset(), full=True))

    def test_a_record_in_another_ones_place_is_noticed(self):
        filesystem = MemoryFilesystem()
        with filesystem.create("/s") as file:
            writer = SegmentWriter(file, Kind.REVISIONS, BUCKET)
            writer.add(2, 1, records.encode(record_of(1, 1)))
            writer.finish(tid_from(1), tid_from(1))
        segment = Segment("/s", filesystem.map("/s"))
        with pytest.raises(CorruptionError, match="in its place"):
            outlined(BUCKET, [segment], Terms(tid_from(1), frozenset(), full=True))

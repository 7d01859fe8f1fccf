"""The short ways of a load find what the long ones find, whatever stands in the segments."""

from __future__ import annotations

from formatted import FIRST, SECOND, damaged, segment_bytes
from hypothesis import given
from hypothesis import strategies as st

from objstore.formats import records
from objstore.formats.segments import Kind, Segment
from objstore.ids import Oid, Tid, pack_oids
from objstore.revisions import BlobFacts, Revision

IDENTITIES = st.binary(min_size=8, max_size=8)
REVISIONS = st.builds(
    Revision,
    IDENTITIES.map(Oid),
    IDENTITIES.map(Tid),
    IDENTITIES.map(Tid),
    st.none() | st.binary(max_size=50),
    st.none() | st.lists(IDENTITIES.map(Oid), max_size=3).map(pack_oids),
    copied_from=st.none() | IDENTITIES.map(Tid),
    blob=st.none() | st.builds(BlobFacts, st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1)),
)
# Few objects, close to each other, and runs of neighbours: so that guesses are right, nearly right, and wrong.
LOWS = st.one_of(
    st.integers(0, 20), st.integers(250, 262), st.integers(65_530, 65_535), st.sampled_from([511, 512, 1023])
)
RUNS = st.builds(lambda first, count: list(range(first, first + count)), st.integers(0, 600), st.integers(0, 300))


@given(
    RUNS,
    st.lists(st.tuples(LOWS, st.integers(1, 9)), max_size=30),
    st.lists(st.tuples(LOWS | st.integers(0, 700), st.integers(0, 10)), min_size=1, max_size=30),
)
def test_the_newest_revision_is_found_wherever_it_stands(run, more, asked):
    entries = sorted({(low, 5) for low in run} | set(more))
    content = segment_bytes(Kind.REVISIONS, 7, [(*entry, b"x") for entry in entries], FIRST, SECOND)
    segment = Segment("p", memoryview(content))
    for low, upto in [*asked, *more]:
        fitting = [at for at, entry in enumerate(entries) if entry[0] == low and entry[1] <= upto]
        assert segment.find(low, upto) == (fitting[-1] if fitting else -1)


@given(REVISIONS)
def test_the_data_of_a_record_is_what_decoding_gives(revision):
    assert records.data_of(records.encode(revision), revision.oid) == (revision.data, revision.tid)


@given(REVISIONS, IDENTITIES.map(Oid))
def test_a_record_of_another_object_is_not_taken(revision, other):
    if other != revision.oid:
        assert records.data_of(records.encode(revision), other) is None


@given(REVISIONS)
def test_the_data_of_a_damaged_record_is_not_given(revision):
    encoded = records.encode(revision)
    for _, changed in damaged(encoded):
        assert records.data_of(changed, revision.oid) is None
    for size in range(len(encoded)):
        assert records.data_of(encoded[:size], revision.oid) is None
    assert records.data_of(encoded + b"x", revision.oid) is None

"""Records that are moved as they are: the same as decoding them and encoding them at another tid."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from objstore.errors import CorruptionError
from objstore.formats import records
from objstore.formats.recordruns import RecordRun, encoded
from objstore.ids import NO_TID, Tid, oid_from
from objstore.revisions import BlobFacts, Revision

IDS = st.binary(min_size=8, max_size=8)
REVISIONS = st.lists(
    st.builds(
        Revision,
        IDS,
        st.just(NO_TID),
        IDS,
        st.none() | st.binary(max_size=30),
        st.none() | st.binary(max_size=3).map(lambda short: short * 8),
        st.none() | IDS,
        st.none() | st.builds(BlobFacts, st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1)),
    ),
    max_size=6,
    unique_by=lambda revision: revision.oid,
)


def run_of(revisions, token, tid, before=b"journal"):
    """A run over a file in which the records of a transaction stand behind something else."""
    content, offsets, sizes = before, [], []
    for revision in revisions:
        record = records.encode(revision, Tid(token))
        offsets.append(len(content))
        sizes.append(len(record))
        content += record
    oids = [revision.oid for revision in revisions]
    return RecordRun("/journal/t", memoryview(content), offsets, sizes, oids, token, tid)


def joined(run):
    """The records of a run, one by one."""
    heads, rests = run.parts()
    return [head + bytes(rest) for head, rest in zip(heads, rests, strict=True)]


@given(REVISIONS, IDS, IDS)
def test_records_get_the_tid_in_place_of_the_token(revisions, token, tid):
    run = run_of(revisions, token, tid)
    expected = [revision._replace(tid=tid) for revision in revisions]
    assert list(run) == expected
    assert joined(run) == [records.encode(revision) for revision in expected]
    assert [records.decode(record) for record in joined(run)] == expected
    assert run[1:] == expected[1:]


@given(REVISIONS, IDS, IDS, st.sets(st.integers(0, 5)))
def test_some_can_be_chosen(revisions, token, tid, positions):
    chosen = sorted(at for at in positions if at < len(revisions))
    run = run_of(revisions, token, tid)
    some = run.chosen(chosen)
    assert list(some) == [list(run)[at] for at in chosen]
    assert joined(some) == [joined(run)[at] for at in chosen]


@given(REVISIONS, IDS)
def test_revisions_are_made_a_run(revisions, tid):
    there = [revision._replace(tid=tid) for revision in revisions]
    run = encoded(there, tid)
    assert list(run) == there
    assert joined(run) == [records.encode(revision) for revision in there]
    assert encoded(run, tid) is run


@given(REVISIONS.filter(bool), IDS, IDS, st.data())
def test_a_damaged_header_is_not_made_good(revisions, token, tid, data):
    """Its checksum is not computed anew, but moved on from what it was."""
    content = bytearray(records.encode(revisions[0], Tid(token)))
    untouched = set(range(records.HEADER_SIZE)) - set(range(12, 28))  # oid and token are compared
    at = data.draw(st.sampled_from(sorted(untouched)))
    content[at] ^= data.draw(st.integers(1, 255))
    run = RecordRun("/t", memoryview(content), [0], [len(content)], [revisions[0].oid], token, tid)
    with pytest.raises(CorruptionError):
        records.decode(joined(run)[0])


@pytest.mark.parametrize("at", [12, 19, 20, 27])
def test_another_record_is_noticed(at):
    """Another object's, or another transaction's."""
    token, tid = b"tokentok", Tid(b"tidtidti")
    revision = Revision(oid_from(1), NO_TID, NO_TID, b"data", b"")
    content = bytearray(records.encode(revision, Tid(token)))
    content[at] ^= 1
    run = RecordRun("/t", memoryview(content), [0], [len(content)], [revision.oid], token, tid)
    with pytest.raises(CorruptionError, match="in its place"):
        run.parts()
    with pytest.raises(CorruptionError):
        list(run)

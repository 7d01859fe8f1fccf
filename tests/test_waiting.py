"""The index of what waits in the journal, beside a plain list of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from objstore.engine.journal import Waiting
from objstore.engine.waiting import WaitingIndex
from objstore.formats.transactions import FileHeader
from objstore.ids import NO_TID, oid_from, tid_from
from objstore.revisions import Details, Transaction

OIDS = st.lists(st.integers(0, 9), min_size=1, max_size=6, unique=True)
STEPS = st.lists(st.one_of(OIDS, st.integers(0, 8)), max_size=30)
"""Oids: of a transaction that is added. A number: how many are left when the others have been flushed."""


def waiting(number, oids):
    tid = tid_from(number)
    header = FileHeader(b"a token.", tid, NO_TID, NO_TID, len(oids), 0, 100 + number, 0)
    oids = tuple(oid_from(oid) for oid in oids)
    transaction = Transaction(tid, NO_TID, Details("", "", b""), oids)
    return Waiting("journal/x", header, transaction, [0] * len(oids), [0] * len(oids))


def agree(index, expected):
    assert index.transactions() == expected
    assert index.count == len(expected)
    assert index.bytes == sum(each.size for each in expected)
    for number in range(10):
        oid = oid_from(number)
        having = [each for each in expected if oid in each.transaction.oids]
        found = index.of_object(oid)
        assert [held.waiting for held in found] == having
        assert [held.waiting.transaction.oids[held.at] for held in found] == [oid] * len(having)
        assert index.newest(oid) == (having[-1].tid if having else None)
        for bound in (NO_TID, *(each.tid for each in expected)):
            upto = [each for each in having if each.tid <= bound]
            held = index.find(oid, bound)
            assert (held.waiting if held is not None else None) == (upto[-1] if upto else None)


@given(STEPS)
def test_it_holds_what_was_added_and_not_flushed(steps):
    index, expected = WaitingIndex(), []
    for number, step in enumerate(steps, 1):
        if isinstance(step, list):
            expected.append(waiting(number, step))
            index.add(expected[-1])
        elif step < len(expected):
            last = len(expected) - step
            index.remove_upto(expected[last - 1].tid)
            del expected[:last]
        agree(index, expected)


def test_many_that_stay_are_not_gone_through_for_few_that_go():
    """What a snapshot holds back may be much more than what one flush moves."""
    index = WaitingIndex()
    expected = [waiting(number, [number % 10, (number + 1) % 10]) for number in range(1, 101)]
    for each in expected:
        index.add(each)
    before = index._held
    index.remove_upto(expected[9].tid)
    assert index._held is before
    agree(index, expected[10:])
    index.remove_upto(expected[89].tid)
    assert index._held is not before
    agree(index, expected[90:])

"""References found by the expression are those found by following opcodes, or none are found."""

from __future__ import annotations

import time

import pytest
from BTrees.OOBTree import OOBTree
from hypothesis import given
from hypothesis import strategies as st
from persistent.mapping import PersistentMapping
from zodbrecords import Pid, Sized, Spy, damaged, pickled, python2_record, zodb_records

from objstore.errors import SerializationError
from objstore.formats.pickles import followed_references, references
from objstore.formats.scanning import LARGEST, scanned
from objstore.ids import oid_from, pack_oids

RECORDS = zodb_records()
OID = [oid_from(0x1000 + at) for at in range(9)]

oids = st.binary(min_size=8, max_size=8) | st.sampled_from(
    [*OID, b"C\x08abcdef", b"QQQQQQQQ", b"\n" * 8, b"\x86Qh\x05\x86QQ."]
)
"""Some look like opcodes, and like references."""
pids = (
    st.tuples(oids, st.sampled_from([PersistentMapping, OOBTree, int]))
    | oids
    | st.tuples(st.just("w"), st.tuples(oids)).map(list)
    | st.tuples(st.just("m"), st.tuples(st.just("other"), oids, st.just(int))).map(list)
)
reference = b"C\x08" + OID[1] + b"q\x02h\x01\x86q\x03Q"
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=300)
    | st.binary(max_size=300)
    | st.sampled_from(
        [reference, reference[:-1], b"x" + reference, "Q", "qQ", b"Q" * 8, "C\x08abcdefghq\x01h\x01\x86Q"]
    )
    | pids.map(Pid)
)
states = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(max_size=9), inner, max_size=5)
        | st.lists(inner, max_size=4).map(tuple)
        | st.frozensets(st.integers() | st.text(max_size=5), max_size=4)
    ),
    max_leaves=12,
)


def agrees(data: bytes) -> bool:
    """Whether it is found by the expression; asserts that it is right then."""
    found = scanned(data)
    assert found is None or found == followed_references(data)
    return found is not None


def test_most_real_records_are_found(record_property):
    found = sum(map(agrees, RECORDS.values()))
    assert found > 0.9 * len(RECORDS)
    record_property("records whose references the expression finds", found)


@given(states, st.integers(3, 5))
def test_any_record(state, protocol):
    data = pickled(PersistentMapping, state, protocol)
    agrees(data)
    assert references(data) == followed_references(data)


@given(damaged(RECORDS.values()))
def test_damaged_records(data):
    """What can be followed is found alike. What cannot be is not always noticed by the expression."""
    try:
        expected = followed_references(data)
    except SerializationError:
        return
    assert scanned(data) in (None, expected)


@given(
    st.lists(
        st.sampled_from(
            [
                b"C\x08",
                OID[1],
                b"q\x01",
                b"h\x01",
                b"\x86",
                b"Q",
                b".",
                b"\x80\x03",
                b"(",
                b"t",
                reference,
                b"N",
                b"K",
                b"X\x03\0\0\0",
                b"cm\nn\n",
            ]
        )
    ).map(b"".join)
)
def test_pieces_of_records(data):
    try:
        expected = followed_references(data)
    except SerializationError:
        return
    assert scanned(data) in (None, expected)


def test_references_come_in_order_and_once():
    data = pickled(PersistentMapping, [Pid((OID[at], PersistentMapping)) for at in (2, 1, 0)])
    assert scanned(data) == pack_oids([OID[2], OID[1], OID[0]])
    again = data[:-2] + reference.replace(OID[1], OID[2]) + b"e."
    assert scanned(again) == followed_references(again) == pack_oids([OID[2], OID[1], OID[0]])
    assert scanned(pickled(PersistentMapping, {"text": "Quite Right"})) == b""


def test_a_record_of_python_2():
    data = b"\x80\x02" + python2_record(b"}q\x02U\x01aU\x08" + OID[3] + b"q\x03h\x01\x86q\x04Qs.")
    assert scanned(data) == OID[3]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b".",
        b"..",
        b".z" + bytes(50),
        b"encrypted" * 30,
        RECORDS[bytes(8)][:-1],
        RECORDS[bytes(8)] + b"x",
        RECORDS[bytes(8)] + b".",
        pickled(PersistentMapping, Pid(OID[0])),
        pickled(PersistentMapping, {"long": "x" * 256}),
        pickled(PersistentMapping, b"x" * (LARGEST + 1)),
        pickled(PersistentMapping, {1, 2}, 4),
        pickled(Pid((OID[1], Sized)), None)[:20],
    ],
)
def test_what_is_left_to_the_other(data):
    assert scanned(data) is None


def test_nothing_is_executed():
    Spy.touched = 0
    data = pickled(Spy, {"spy": Spy(), "set": {1}, "reference": Pid((OID[1], Spy))})
    touched = Spy.touched
    assert scanned(data) == OID[1]
    assert Spy.touched == touched


@pytest.mark.parametrize(
    "unit",
    [
        b"C\x08abcdefgh",
        b"C\x08abcdefghq\x01h\x01\x86",
        b"X\xff\0\0\0",
        b"cabc",
        b"q",
        b"(",
        b"C\xff",
        b"C\x08",
        b"h\x01\x86",
    ],
)
def test_hostile_records_take_little_time(unit):
    """Linear in their size: nothing is tried in more than one way."""
    data = b"\x80\x03" + unit * ((LARGEST - 2) // len(unit))
    begun = time.thread_time()
    scanned(data)
    assert time.thread_time() - begun < 1.0

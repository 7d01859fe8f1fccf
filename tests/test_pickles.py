"""References and class names found in records, and references rewritten, without loading anything.

The records are ZODB's own, written by it or put together as old versions wrote them; ZODB's `referencesf` and
the standard library's unpickler say what is right.
"""

from __future__ import annotations

import io
import itertools
import pickle
import struct
import sys

import pytest
from BTrees.OOBTree import OOBTree
from hypothesis import given, settings
from hypothesis import strategies as st
from persistent.mapping import PersistentMapping
from ZODB.serialize import referencesf
from zodbpickle import binary
from zodbrecords import Pid, Sized, Spy, damaged, pickled, python2_record, zodb_records

from objstore.errors import SerializationError
from objstore.formats.pickles import class_name, references, rewrite_references
from objstore.ids import Oid, oid_from, pack_oids, split_oids

RECORDS = zodb_records()
OID = [oid_from(0x1000 + n) for n in range(9)]


class Loader(pickle.Unpickler):
    """Loads a record of plain data for comparison, its persistent ids as they are."""

    def find_class(self, module, name):
        return (module, name)

    def persistent_load(self, pid):
        return Pid(pid)


def loaded(data: bytes) -> tuple[object, object]:
    loader = Loader(io.BytesIO(data), encoding="bytes")
    return loader.load(), loader.load()


# --- references --------------------------------------------------------------------------------------


def test_references_are_those_that_zodb_finds():
    assert len(RECORDS) > 100
    for data in RECORDS.values():
        assert split_oids(references(data)) == list(dict.fromkeys(referencesf(data)))
    assert sum(len(references(data)) for data in RECORDS.values()) > 100 * 8


def test_references_come_in_order_and_once():
    data = pickled(
        PersistentMapping, [Pid((OID[2], PersistentMapping)), Pid(OID[1]), Pid((OID[2], int)), Pid(OID[0])]
    )
    assert references(data) == pack_oids([OID[2], OID[1], OID[0]])


def test_references_in_the_arguments_of_the_class_come_first():
    data = pickled((Sized, (1, Pid(OID[5]))), {"friend": Pid(OID[4])})
    assert references(data) == pack_oids([OID[5], OID[4]])
    sized = next(data for data in RECORDS.values() if class_name(data).endswith(".Sized"))
    assert split_oids(references(sized)) == referencesf(sized)[:1]


def test_a_persistent_class_is_a_reference():
    data = pickled(Pid((OID[3], type)), None)
    assert references(data) == OID[3]


@pytest.mark.parametrize(
    "pid",
    [
        ["w", (OID[0],)],
        ["w", (OID[0], "other")],
        [OID[0]],
        ["m", ("other", OID[0], PersistentMapping)],
        ["n", ("other", OID[0])],
    ],
)
def test_weak_references_and_other_databases_are_left_out(pid):
    assert references(pickled(PersistentMapping, {"a": Pid(pid), "b": Pid(OID[1])})) == OID[1]


def test_a_record_without_references():
    assert references(pickled(PersistentMapping, None)) == b""


@pytest.mark.parametrize("state", [b"(U\x08%sq\x02h\x01tQ.", b"U\x08%sQ.", b"(T\x08\0\0\0%sq\x02h\x01tQ."])
def test_references_of_records_that_python_2_wrote(state):
    data = python2_record(state % OID[3])
    assert references(data) == OID[3]
    assert split_oids(references(data)) == referencesf(data)


def test_old_reductions_are_followed():
    """A class as `copy_reg._reconstructor` makes it, with a state built into it."""
    data = python2_record(
        b"}q\x02U\x01aq\x03ccopy_reg\n_reconstructor\nq\x04(h\x01c__builtin__\nobject\nq\x05NtRq\x06"
        b"}q\x07U\x01b(U\x08" + OID[2] + b"q\x08h\x01tq\x09QsbsU\x01c(iold.module\nClassic\n}b0."
    )
    assert references(data) == OID[2]


@pytest.mark.parametrize("protocol", range(1, 6))
def test_every_protocol_is_followed(protocol):
    """Protocols that ZODB does not write, with every kind of value that pickles know."""
    value = [
        None, True, False, 0, 255, 65535, -1, 2**31, 2**100, -(2**3000), 1.5, "", "a" * 300, "é" * 70000,
        (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], [1], [1, 2], {}, {1: 2}, {1: 2, 3: 4},
        {1, 2}, frozenset({1}), complex(1, 2), bytearray(b"abc"), list(range(1000)), "a" * 300,
    ]  # fmt: skip
    value.append(value)
    reference = Pid((OID[1], OOBTree)) if protocol >= 3 else Pid([OID[1]])
    data = pickled(OOBTree, [*value, reference], protocol)
    if protocol >= 3:
        assert references(data) == OID[1]
        assert rewrite_references(data, lambda oid: oid) == data
    else:
        with pytest.raises(SerializationError, match="eight bytes"):
            rewrite_references(data, lambda oid: oid)
    assert class_name(data) == "BTrees.OOBTree.OOBTree"


def test_large_constants_have_long_lengths():
    oid = b"\x8e" + struct.pack("<Q", 8) + OID[1]
    data = b"cx\nC\n.\x80\x04\x8d" + struct.pack("<Q", 3) + b"abc0" + oid + b"Q."
    assert references(data) == OID[1]


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=400),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.builds(lambda item: [item, item], inner)
    ),
    max_leaves=20,
)
pids = st.sampled_from(OID).flatmap(
    lambda oid: st.sampled_from([oid, (oid, int), (oid, OOBTree), ["w", (oid,)], ["n", ("x", oid)], [oid]])
)


@given(st.lists(plain | pids.map(Pid)), st.lists(pids.map(Pid)))
@settings(max_examples=200, deadline=None)
def test_references_of_any_state(state, arguments):
    found = [item.value for item in [*arguments, *state] if isinstance(item, Pid)]
    expected = [pid if isinstance(pid, bytes) else pid[0] for pid in found if not isinstance(pid, list)]
    data = pickled((OOBTree, tuple(arguments)), state)
    assert split_oids(references(data)) == list(dict.fromkeys(expected))


# --- names of classes --------------------------------------------------------------------------------


def test_class_names_of_real_records():
    names = {class_name(data) for data in RECORDS.values()}
    assert names == {
        "persistent.mapping.PersistentMapping",
        "persistent.list.PersistentList",
        "BTrees.OOBTree.OOBTree",
        "BTrees.OOBTree.OOBucket",
        "BTrees.OOBTree.OOTreeSet",
        "BTrees.IOBTree.IOBTree",
        "BTrees.IOBTree.IOBucket",
        "zodbrecords.Sized",
    }


@pytest.mark.parametrize(
    "pickle_of_class",
    [
        b"cgone.away\nGone\n.",
        b"cgone.away\nGone\nN\x86.",
        b"cgone.away\nGone\n(K\x01K\x02tq\x01\x86.",
        b"(U\x09gone.awayq\x01U\x04Gonet(t\x86.",
        b"X\x09\0\0\0gone.awayX\x04\0\0\0Gone\x86N\x86.",
        b"\x80\x04\x8c\x09gone.away\x94\x8c\x04Gone\x94\x93\x94.",
        b"\x80\x04\x8c\x09gone.away\x94\x8c\x04Gone\x94\x93\x94)\x86.",
    ],
)
def test_every_form_of_a_class(pickle_of_class):
    """A class is named without its module being there."""
    assert class_name(pickle_of_class + b"N.") == "gone.away.Gone"
    assert "gone" not in sys.modules


@pytest.mark.parametrize("pickle_of_class", [b"N.", b"K\x01.", b").", b"K\x01N\x86.", b"\x82\x05.", b"(((((t."])
def test_a_record_without_a_class(pickle_of_class):
    with pytest.raises(SerializationError):
        class_name(pickle_of_class + b"N.")


def test_a_persistent_class_has_no_name():
    with pytest.raises(SerializationError, match="names no class"):
        class_name(pickled(Pid((OID[3], type)), None))


# --- rewriting ---------------------------------------------------------------------------------------


def shifted(oid: Oid) -> Oid:
    return oid_from(int.from_bytes(oid, "big") + 0x0700000000)


def test_rewriting_changes_oids_and_nothing_else():
    for data in RECORDS.values():
        rewritten = rewrite_references(data, shifted)
        assert len(rewritten) == len(data)
        assert split_oids(references(rewritten)) == [shifted(oid) for oid in split_oids(references(data))]
        assert (
            rewrite_references(rewritten, lambda oid: oid_from(int.from_bytes(oid, "big") - 0x0700000000)) == data
        )
        assert rewrite_references(data, lambda oid: oid) == data
        assert class_name(rewritten) == class_name(data)


def test_rewriting_asks_once_for_each_oid():
    asked = []
    data = pickled(PersistentMapping, [Pid((binary(oid), int)) for oid in (OID[2], OID[1], OID[2], OID[1])])
    assert references(rewrite_references(data, lambda oid: asked.append(oid) or shifted(oid))) == pack_oids(
        [shifted(OID[2]), shifted(OID[1])]
    )
    assert asked == [OID[2], OID[1]]


def test_rewriting_reaches_weak_references_and_leaves_other_databases():
    forms = [["w", (OID[0],)], [OID[1]], ["w", (OID[2], "x")], ["n", ("x", OID[3])], ["m", ("x", OID[4], int)]]
    _, state = loaded(rewrite_references(pickled(PersistentMapping, [Pid(pid) for pid in forms]), shifted))
    expected = [[b"w", (shifted(OID[0]),)], [shifted(OID[1])], *forms[2:]]
    assert [str(pid.value).replace("b'w'", "'w'") for pid in state][:4] == [
        str(pid).replace("b'w'", "'w'") for pid in expected
    ][:4]
    assert state[4].value[1][:2] == ("x", OID[4])


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_rewriting_leaves_data_that_shares_the_constant_of_a_reference(order):
    """`index[obj._p_oid] = obj` makes the oid a key and a reference, by one constant and the memo."""
    oid = bytes(OID[6])
    items = [oid, Pid((oid, int)), Pid(oid), [oid, oid]]
    data = pickled(PersistentMapping, [items[at] for at in order])
    _, state = loaded(rewrite_references(data, shifted))
    found = [state[order.index(at)] for at in range(4)]
    assert found[0] == oid
    assert found[1].value[0] == shifted(oid)
    assert found[2].value == shifted(oid)
    assert found[3] == [oid, oid]


def test_rewriting_an_oid_shared_only_by_references_stays_in_place():
    oid = bytes(OID[6])
    data = pickled(PersistentMapping, [Pid((oid, int)), Pid(oid), Pid(["w", (oid,)])])
    assert data.count(oid) == 1
    assert rewrite_references(data, shifted) == data.replace(oid, shifted(oid))


@pytest.mark.parametrize("form", [(bytes(OID[6]), int), ["w", (bytes(OID[6]),)]])
def test_rewriting_reaches_references_that_are_taken_from_the_memo_as_a_whole(form):
    """As in records that ZODB has imported: one tuple is the persistent id of every reference to an object."""
    data = pickled(PersistentMapping, [Pid(form), Pid(form)])
    _, state = loaded(rewrite_references(data, shifted))
    oids = [pid.value[1][0] if isinstance(pid.value, list) else pid.value[0] for pid in state]
    assert oids == [shifted(OID[6])] * 2


def test_rewriting_does_not_write_into_frames():
    oid = bytes(OID[6])
    with pytest.raises(SerializationError, match="frame"):
        rewrite_references(pickled(PersistentMapping, [oid, Pid(oid), "x" * 100], 4), shifted)


@given(st.lists(plain | pids.map(Pid)))
@settings(max_examples=100, deadline=None)
def test_rewriting_any_state_back_and_forth(state):
    data = pickled(OOBTree, state)
    rewritten = rewrite_references(data, shifted)
    assert split_oids(references(rewritten)) == [shifted(oid) for oid in split_oids(references(data))]
    back = rewrite_references(rewritten, lambda oid: oid_from(int.from_bytes(oid, "big") - 0x0700000000))
    assert references(back) == references(data)


# --- damage and malice -------------------------------------------------------------------------------

EVERYTHING = (references, class_name, lambda data: rewrite_references(data, shifted))


def attempts(data: bytes) -> None:
    for function in EVERYTHING:
        try:
            function(data)
        except SerializationError as error:
            assert str(error)  # noqa: PT017 - what is tested is that nothing else is raised


@pytest.mark.parametrize(
    "data", [b"", b".", b"N", b"N.", b"N.N", b"\x80", b"(", b"q\x00.", b"h\x05.", b"\xff.", b"0."]
)
def test_what_is_no_record(data):
    with pytest.raises(SerializationError):
        references(data)


def test_a_record_cut_off_anywhere():
    for data in [data for data in RECORDS.values() if len(data) < 400][:20]:
        for end in range(len(data)):
            with pytest.raises(SerializationError):
                references(data[:end])


def test_a_compressed_record_says_so():
    with pytest.raises(SerializationError, match="zlibstorage"):
        references(b".z" + b"\x78\x9c123")


@given(damaged(RECORDS.values()))
@settings(max_examples=500, deadline=None)
def test_damaged_records_raise_one_error(data):
    attempts(data)


opcodes = st.sampled_from(
    [bytes([op]) for op in b"NK()]}0123tlde.QRboiascqrhjpgu\x80\x81\x85\x86\x87\x93\x94\x95CUX"]
)


@given(st.lists(opcodes | st.binary(max_size=9)).map(b"".join))
@settings(max_examples=500, deadline=None)
def test_strange_opcodes_raise_one_error(data):
    attempts(data + b".N.")


def test_nothing_is_imported_or_called():
    data = pickled(Spy, Spy()) + b""
    hostile = b"cthis\ns\n.cos\nsystem\n(U\x04true\x85R."
    Spy.touched = 0
    assert class_name(data) == "zodbrecords.Spy"
    assert references(data) == references(hostile) == b""
    assert Spy.touched == 0
    assert "this" not in sys.modules


def test_extension_codes_do_not_reach_the_registry():
    """The standard unpickler would store a stand-in for the class in the cache of the whole process."""
    data = b"\x82\x4d.\x83\x01\x02\x84\x01\x02\x03\x04\x85R."
    assert references(data) == b""
    with pytest.raises(SerializationError, match="names no class"):
        class_name(data)


def test_a_memo_index_takes_no_memory():
    """The standard unpickler makes room for every index below it: 32 GiB for these ten bytes."""
    assert references(b"Nr\xff\xff\xff\x7f.N.") == b""


def test_deep_nesting_is_not_recursion():
    """The standard unpickler overflows the stack where it hashes the key of this dictionary."""
    deep = b")" + b"\x85" * 300_000
    attempts(b"N.}" + deep + b"Ns.")
    attempts(deep + b".N.")
    attempts(b"N." + b"(" * 300_000 + b".")
    attempts(b"N.N" + b"2" * 300_000 + b".")
    assert references(b"N.}" + deep + b"Ns.") == b""


def test_a_chain_through_the_memo_takes_linear_time():
    data = b"N.C\x08" + OID[0] + b"q\x00" + b"h\x00q\x00" * 200_000 + b"Q."
    assert rewrite_references(data, shifted).endswith(b"C\x08" + shifted(OID[0]) + b"q\x00Q.")


def test_lengths_beyond_the_record():
    for data in (b"N.\x8e" + b"\xff" * 8, b"N.B\xff\xff\xff\xff", b"N.T\xff\xff\xff\xff", b"N.\x96" + b"\xff" * 8):
        with pytest.raises(SerializationError):
            references(data + b"abc.")

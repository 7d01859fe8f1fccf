"""Records decoded for people to look at: right, bounded, and without loading anything."""

from __future__ import annotations

import datetime
import decimal
import json
import math
import sys

import pytest
from BTrees.OOBTree import OOBTree
from hypothesis import given, settings
from hypothesis import strategies as st
from persistent.mapping import PersistentMapping
from zodbrecords import Pid, Sized, Spy, damaged, pickled, python2_record, zodb_records

from objstore.errors import SerializationError
from objstore.formats.descriptions import Kind, Reference, describe
from objstore.formats.disassembly import disassemble
from objstore.formats.pickles import class_name, references
from objstore.formats.rendering import printable, to_json, to_text
from objstore.ids import oid_from, split_oids

RECORDS = zodb_records()
OID = [oid_from(0x1000 + n) for n in range(9)]


def state_json(state: object, protocol: int = 3) -> object:
    result = to_json(describe(pickled(OOBTree, state, protocol)).state)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    return result


def state_text(state: object, **bounds: int) -> str:
    return "\n".join(to_text(describe(pickled(OOBTree, state)).state, **bounds))


# --- what is decoded ---------------------------------------------------------------------------------


def test_real_records_are_described():
    for data in RECORDS.values():
        description = describe(data)
        assert description.class_name == class_name(data)
        strong = [found.oid for found in description.references if found.kind is Kind.STRONG]
        assert list(dict.fromkeys(strong)) == split_oids(references(data))
        assert json.dumps(to_json(description.state), allow_nan=False)
        assert all(line.isprintable() for line in to_text(description.state))


def test_the_root_of_a_database():
    description = describe(RECORDS[bytes(8)])
    tree = {"$reference": "0000000000000001", "class": "BTrees.OOBTree.OOBTree"}
    state = to_json(description.state)
    assert state["data"]["tree"] == tree
    assert state["data"]["weak"] == {"$weak": "0000000000000001"}
    assert Reference(Kind.WEAK, oid_from(1)) in description.references
    assert "    'tree': <reference 0000000000000001 BTrees.OOBTree.OOBTree>," in to_text(description.state)


def test_arguments_of_the_class():
    description = describe(pickled((Sized, (3, Pid((OID[1], Sized)))), None))
    assert description.class_name == "zodbrecords.Sized"
    assert to_json(description.arguments) == [3, {"$reference": OID[1].hex(), "class": "zodbrecords.Sized"}]


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_in_every_protocol(protocol):
    value = {
        "none": None, "yes": True, "no": False, "small": 7, "negative": -7, "large": 2**70, "float": 1.5,
        "text": "é\n", "list": [1, [2], (3, (4, 5), (6, 7, 8), (9, 10, 11, 12), ())], "set": {5},
        "bytes": b"\xff\x00", "more": ["x" * 300, {1: 2, 3: 4}],
    }  # fmt: skip
    data = pickled(OOBTree, 0, protocol)[:-1]
    assert describe(data + b".").class_name == "BTrees.OOBTree.OOBTree"
    assert state_json(value, protocol) == {
        **value,
        "list": [1, [2], [3, [4, 5], [6, 7, 8], [9, 10, 11, 12], []]],
        "set": {"$set": [5]},
        "bytes": {"$bytes": "ff00"},
        "more": ["x" * 300, {"$pairs": [[1, 2], [3, 4]]}],
    }


def test_what_json_has_no_word_for():
    assert state_json([math.inf, -math.inf]) == [{"$float": "inf"}, {"$float": "-inf"}]
    assert state_json({"$a": 1}) == {"$pairs": [["$a", 1]]}
    assert state_json(2**5000) == {"$int": hex(2**5000)}
    assert state_json(OOBTree) == {"$class": "BTrees.OOBTree.OOBTree"}
    assert state_json("\udc80") == "\udc80"


def test_references_of_every_kind():
    assert state_json(
        [
            Pid((OID[1], PersistentMapping)),
            Pid(OID[2]),
            Pid(["w", (OID[3],)]),
            Pid([OID[4]]),
            Pid(["w", (OID[5], "x")]),
            Pid(["n", ("x", OID[6])]),
            Pid(["m", ("x", OID[7], PersistentMapping)]),
        ]
    ) == [
        {"$reference": OID[1].hex(), "class": "persistent.mapping.PersistentMapping"},
        {"$reference": OID[2].hex()},
        {"$weak": OID[3].hex()},
        {"$weak": OID[4].hex()},
        {"$weak": OID[5].hex(), "database": "x"},
        {"$foreign": OID[6].hex(), "database": "x"},
        {"$foreign": OID[7].hex(), "class": "persistent.mapping.PersistentMapping", "database": "x"},
    ]
    assert "<foreign 0000000000001006 in database 'x'>" in state_text([Pid(["n", ("x", OID[6])])])


def test_a_persistent_class_is_shown_by_its_oid():
    description = describe(pickled(Pid((OID[3], type)), None))
    assert OID[3].hex() in description.class_name


def test_dates_and_times_are_readable():
    zone = datetime.timezone(datetime.timedelta(hours=1))
    moment = datetime.datetime(2024, 2, 29, 23, 59, 58, 999_999)
    state = [moment, moment.replace(tzinfo=zone), moment.date(), moment.time()]
    shown = state_json(state)
    assert shown[0] == {"$object": "datetime.datetime", "value": "2024-02-29T23:59:58.999999"}
    assert shown[1]["value"] == shown[0]["value"]
    assert shown[1]["arguments"][0]["$object"] == "datetime.timezone"
    assert shown[2] == {"$object": "datetime.date", "value": "2024-02-29"}
    assert shown[3] == {"$object": "datetime.time", "value": "23:59:58.999999"}
    assert state_text(moment) == "<datetime.datetime 2024-02-29T23:59:58.999999>"


@pytest.mark.parametrize("packed", [b"", b"\x00" * 10, b"\xff" * 10, b"abc", b"\x07\xe8\x02\x1e"])
def test_dates_that_are_none_stay_arguments(packed):
    for name in (b"datetime", b"date", b"time"):
        state = b"cdatetime\n%s\nC%c%s\x85R." % (name, len(packed), packed)
        shown = to_json(describe(python2_record(state)).state)
        assert shown["$object"] == f"datetime.{name.decode()}"
        assert ("value" in shown) != ("arguments" in shown)


def test_objects_show_what_they_were_made_of():
    assert state_json(decimal.Decimal("1.5")) == {"$object": "decimal.Decimal", "arguments": ["1.5"]}
    sized = state_json(Plain(1))
    assert sized == {"$object": f"{__name__}.Plain", "arguments": [], "state": {"size": 1}}
    assert state_text(Plain(1)) == f"<{__name__}.Plain arguments=() state={{'size': 1}}>"
    assert state_json(Many([1, 2])) == {"$object": f"{__name__}.Many", "arguments": [], "items": [1, 2]}
    assert state_json(Named(a=1))["pairs"] == [["a", 1]]


class Plain:
    def __init__(self, size):
        self.size = size


class Many(list):
    pass


class Named(dict):
    pass


def test_records_that_python_2_wrote():
    data = python2_record(
        b"}q\x02(U\x01aq\x03ccopy_reg\n_reconstructor\nq\x04(h\x01c__builtin__\nobject\nq\x05NtRq\x06"
        b"}q\x07U\x01b(U\x08" + OID[2] + b"q\x08h\x01tq\x09QsbU\x01c(iold.module\nClassic\nq\x0a}b"
        b"U\x02\xff\x00K\x01u."
    )
    description = describe(data)
    assert description.class_name == "old.module.Old"
    assert description.references == (Reference(Kind.STRONG, OID[2], "old.module.Old"),)
    reference = {"$reference": OID[2].hex(), "class": "old.module.Old"}
    assert to_json(description.state) == {
        "$pairs": [
            ["a", {"$object": "old.module.Old", "state": {"b": reference}}],
            ["c", {"$object": "old.module.Classic", "arguments": [], "state": {}}],
            [{"$bytes": "ff00"}, 1],
        ]
    }  # fmt: skip


def test_a_class_whose_name_is_not_ascii():
    data = "cmodulé\nÉtat\n.cmodulé\nAutre\n.".encode()
    assert class_name(data) == describe(data).class_name == "modulé.État"
    assert to_json(describe(data).state) == {"$class": "modulé.Autre"}
    assert len(list(disassemble(data))) == 6


# --- within bounds -----------------------------------------------------------------------------------


def test_what_holds_itself():
    cycle: list[object] = [1]
    cycle.append(cycle)
    assert state_json(cycle) == [1, {"$cycle": True}]
    assert state_text(cycle) == "[1, <itself>]"
    shared = [1]
    assert state_json([shared, shared]) == [[1], [1]]


def test_a_pair_of_pairs_of_pairs_is_cut():
    """Sixty levels of a pair of the level below are 2**60 values in 300 bytes."""
    data = b"N."[:0] + b"cx\nC\n.N" + b"2\x86" * 60 + b"."
    state = describe(data).state
    assert len(json.dumps(to_json(state, limit=1000))) < 50_000
    lines = list(to_text(state, limit=1000))
    assert sum(map(len, lines)) < 200_000
    assert any("..." in line for line in lines)


def test_long_values_are_cut_for_people_only():
    text = state_text(["x" * 100_000, b"y" * 100_000, list(range(100_000))])
    assert "... (100,000 characters)" in text
    assert "... (100,000 bytes)" in text
    assert "more)" in text
    assert len(text) < 200_000
    assert state_json("x" * 100_000) == "x" * 100_000


def test_deep_nesting_is_cut():
    data = b"cx\nC\n.)" + b"\x85" * 100_000 + b"."
    assert "..." in "\n".join(to_text(describe(data).state))
    assert "$more" in json.dumps(to_json(describe(data).state))


def test_nothing_reaches_a_terminal_unescaped():
    data = b"cevil\x1b[2J\nC\x07\n.X\x05\0\0\0\x1b[2Jx."
    description = describe(data)
    assert printable(description.class_name) == "evil\\x1b[2J.C\\x07"
    assert all(line.isprintable() for line in [*to_text(description.state), *disassemble(data)])


# --- malice and damage -------------------------------------------------------------------------------


def test_nothing_is_imported_or_called():
    data = pickled(Spy, [Spy()])
    Spy.touched = 0
    assert state_text([]) == "[]"
    assert to_json(describe(data).state) == [{"$object": "zodbrecords.Spy", "arguments": []}]
    hostile = b"cthis\ns\n.cos\nsystem\nU\x04true\x85R."
    assert to_json(describe(hostile).state) == {"$object": "os.system", "arguments": ["true"]}
    assert list(disassemble(hostile))
    assert Spy.touched == 0
    assert "this" not in sys.modules


def attempts(data: bytes) -> None:
    try:
        description = describe(data)
        assert json.dumps(to_json(description.state), allow_nan=False)
        assert list(to_text(description.state))
    except SerializationError as error:
        assert str(error)  # noqa: PT017 - what is tested is that nothing else is raised
    lines = []
    try:
        lines.extend(disassemble(data))
    except SerializationError as error:
        assert str(error)  # noqa: PT017


@given(damaged(RECORDS.values()))
@settings(max_examples=400, deadline=None)
def test_damaged_records_raise_one_error(data):
    attempts(data)


opcodes = st.sampled_from(
    [
        *(bytes([op]) for op in b"NK()]}0123tlde.QRboasu\x80\x81\x85\x86\x87\x90\x91\x92\x93\x94"),
        *(
            b"q\x00",
            b"h\x00",
            b"h\x01",
            b"p0\n",
            b"g0\n",
            b"cbuiltins\nset\n",
            b"iold\nC\n",
            b"C\x08ABCDEFGH",
            b"U\x01w",
        ),
        *(
            b"cdatetime\ndate\n",
            b"c_codecs\nencode\n",
            b"X\x06\0\0\0latin1",
            b"ccopy_reg\n_reconstructor\n",
            b"\x82\x05",
        ),
        *(b"I01\n", b"I5\n", b"L5L\n", b"F1.5\n", b"S'a'\n", b"Va\n", b"Pa\n", b"\x97", b"\x98", b"\x8a\x01\xff"),
    ]
)


@given(st.lists(opcodes).map(b"".join))
@settings(max_examples=600, deadline=None)
def test_strange_opcodes_raise_one_error(data):
    attempts(b"cx\nC\n." + data + b".")
    attempts(data + b".N.")


@pytest.mark.parametrize(
    "data", [b"", b".", b"N.", b"N.N", b"N.N.", b"cx\nC", b"cx\nC\n.\xff", b"cx\nC\n.Nr\xff\xff\xff\xff"]
)
def test_what_is_no_record(data):
    with pytest.raises(SerializationError):
        describe(data)


# --- the listing -------------------------------------------------------------------------------------


def test_the_listing_of_a_record():
    data = pickled(PersistentMapping, {"a": Pid(OID[1]), "b": [1]})
    assert (
        list(disassemble(data))
        == """class:
      0: PROTO 3
      2: GLOBAL 'persistent.mapping.PersistentMapping'
     40: BINPUT 0
     42: STOP
state:
     43: PROTO 3
     45: EMPTY_DICT
     46: BINPUT 1
     48: MARK
     49:   BINUNICODE 'a'
     55:   BINPUT 2
     57:   SHORT_BINBYTES b'\\x00\\x00\\x00\\x00\\x00\\x00\\x10\\x01'
     67:   BINPUT 3
     69:   BINPERSID
     70:   BINUNICODE 'b'
     76:   BINPUT 4
     78:   EMPTY_LIST
     79:   BINPUT 5
     81:   BININT1 1
     83:   APPEND
     84: SETITEMS
     85: STOP""".splitlines()
    )


def test_the_listing_goes_as_far_as_the_bytes_make_sense():
    lines: list[str] = []
    with pytest.raises(SerializationError, match="BININT1 at byte 7"):
        lines.extend(disassemble(b"cx\nC\n.NK"))
    assert lines == ["class:", "      0: GLOBAL 'x.C'", "      5: STOP", "state:", "      6: NONE"]
    with pytest.raises(SerializationError, match="no opcode at byte 6"):
        lines.extend(disassemble(b"cx\nC\n.\xffN."))

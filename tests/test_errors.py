"""The errors: that they come over to another process as they are."""

from __future__ import annotations

import inspect
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from objstore import errors
from objstore.errors import CorruptionError, ObjstoreError

OID, TID = b"12345678", b"23456789"
OTHERS = {
    "oid": OID,
    "tid": TID,
    "serial": TID,
    "committed": TID,
    "snapshot": TID,
    "name": "a name",
    "size": 8,
    "limit": 7,
}
"""Arguments of errors that want something else than a text."""


def made(cls):
    """An error of a class, whatever arguments that wants."""
    if not inspect.isfunction(cls.__init__):
        return cls("a message")
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    wanted = [
        each.name for each in parameters if each.default is each.empty and each.kind is not each.VAR_POSITIONAL
    ]
    return cls(**{name: OTHERS.get(name, "a text") for name in wanted})


CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, ObjstoreError)]


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_can_be_pickled(cls):
    error = made(cls)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls
    assert (str(again), again.args) == (str(error), error.args)
    assert again.__dict__ == error.__dict__


def damaged():
    raise CorruptionError("a/path", "the checksum of a record is wrong", oid=OID)


def test_an_error_of_a_process_of_a_pool_is_raised_here():
    """The pool was broken: the error could not be made again of the message that it keeps."""
    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
        pytest.raises(CorruptionError, match="the checksum of a record is wrong") as caught,
    ):
        pool.submit(damaged).result()
    assert (caught.value.path, caught.value.oid) == ("a/path", OID)

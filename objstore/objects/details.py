"""What a transaction says of itself: from a transaction object to bytes, and back for people to read.

The extension of a transaction is JSON where JSON can say it without loss, otherwise a pickle, protocol 3.
Reading never executes a pickle: such an extension is shown undecoded.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

from objstore.errors import SerializationError
from objstore.later import Later
from objstore.revisions import Details

if TYPE_CHECKING:
    import json
else:
    json = Later("json")

UNDECODED = "undecoded"
"""The key under which an extension that is a pickle is shown, as bytes."""
_NOTHING = Details()


def details_of(transaction: Any) -> Details:
    """The details of a `transaction.interfaces.ITransaction`. Raises SerializationError."""
    user, description, extension = transaction.user, transaction.description, transaction.extension
    if not (user or description or extension):
        return _NOTHING
    return Details(_sound(user), _sound(description), encode_extension(extension))


def _sound(text: str) -> str:
    """The text without lone surrogates, which UTF-8 cannot say."""
    return text.encode("utf-8", "backslashreplace").decode()


def encode_extension(extension: dict[str, Any]) -> bytes:
    """An extension as bytes. Raises SerializationError where it cannot be pickled either."""
    if not extension:
        return b""
    if _is_json(extension):
        return json.dumps(extension, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()
    try:
        return pickle.dumps(extension, 3)
    except (pickle.PicklingError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise SerializationError(f"the extension of the transaction cannot be stored: {error}") from error


def _is_json(value: object) -> bool:
    """Whether JSON gives back exactly this value."""
    if isinstance(value, dict) and type(value) is dict:
        return all(type(key) is str and _is_json(item) for key, item in value.items())
    if type(value) is list:
        return all(_is_json(item) for item in value)
    if type(value) is float:
        return value - value == 0  # neither infinite nor NaN
    return value is None or type(value) in (str, int, bool)


def decode_extension(data: bytes) -> dict[str, Any]:
    """An extension as people read it; what cannot be decoded without executing it is under `UNDECODED`."""
    if not data:
        return {}
    try:
        value = json.loads(data) if data.startswith(b"{") else None
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {UNDECODED: data}

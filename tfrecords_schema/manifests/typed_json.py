"""JSON files of ours, read as what they must be: types, bounds and names are checked before anything is done with them.

A file may lie where others can write, be cut short by a full disk, or come from another version. msgspec decodes it
into the very dataclass that it was written from; of `Annotated` fields it checks bounds too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec

from tfrecords_schema.errors import InputError
from tfrecords_schema.text import one_line

_MOST_LEVELS = 64  # deeper values exhaust the recursion of whoever walks through them
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[{]|[\]}]', re.DOTALL)

Count = Annotated[int, msgspec.Meta(ge=0)]


def decode(text: str, kind: Any, where: str) -> Any:
    """The value, an instance of `kind`; of a dataclass, keys that it does not have are passed over.

    Raises:
      InputError: it is no JSON, or does not fit; names `where`, and which field.
    """
    try:
        if any(depth > _MOST_LEVELS for depth in levels(text)):
            raise InputError(f"{where}: expected JSON of at most {_MOST_LEVELS} levels, found more")
        return msgspec.json.decode(text.encode("utf-8"), type=kind)
    except msgspec.ValidationError as error:
        said, _, place = str(error).rpartition(" - at `$")
        at = f"{place.removesuffix('`').removeprefix('.')}: " if said else ""
        raise InputError(f"{where}: {at}{said or error}") from None
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise InputError(f"{where}: expected JSON, found something else: {one_line(error)}") from None


def levels(text: str) -> Iterator[int]:
    """How deep each array and object stands in others, in their order; the first that is too deep can end it."""
    depth = 0
    for found in _BRACKETS.finditer(text):
        if found[0] in "[{":
            depth += 1
            yield depth
        elif found[0] in "]}":
            depth -= 1

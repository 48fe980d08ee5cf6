"""JSON files of ours, read as what they must be: types, bounds and names are checked before anything is done with them.

A file may lie where others can write, be cut short by a full disk, or come from another version. msgspec decodes it
into the very dataclass that it was written from; of `Annotated` fields it checks bounds too.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from tfrecords_schema.errors import InputError
from tfrecords_schema.json_depth import require_shallow
from tfrecords_schema.text import one_line

Count = Annotated[int, msgspec.Meta(ge=0)]


def decode(text: str, kind: Any, where: str) -> Any:
    """The value, an instance of `kind`; of a dataclass, keys that it does not have are passed over.

    Raises:
      InputError: it is no JSON, or does not fit; names `where`, and which field.
    """
    try:
        data = text.encode("utf-8")
        require_shallow(data)
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        said, _, place = str(error).rpartition(" - at `$")
        at = f"{place.removesuffix('`').removeprefix('.')}: " if said else ""
        raise InputError(f"{where}: {at}{said or error}") from None
    except ValueError as error:  # msgspec's too
        raise InputError(f"{where}: expected JSON, found something else: {one_line(error)}") from None

"""What places and tables tell of images, as rows of the catalogue, before all of their ids and files are known."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.listing import entries
from pipelines.listing.catalogue import Catalogue
from tfrecords_schema.storage import paths

POSITION = "(place::BIGINT << 40 | number)"
_SCHEMA = pa.schema(
    [
        ("place", pa.int32()),
        ("number", pa.int64()),
        ("line", pa.int64()),
        ("name", pa.string()),
        ("short", pa.string()),
        ("id", pa.string()),
        ("uri", pa.string()),
        ("version", pa.string()),
        ("split", pa.string()),
        ("captions", pa.list_(pa.string())),
        ("run", pa.uint64()),
        ("error", pa.string()),
        ("message", pa.string()),
    ]
)
_SCHEME = "'^([a-zA-Z][-a-zA-Z0-9+.]*)://'"


def begin(catalogue: Catalogue) -> None:
    """Makes an empty table `drafts`.

    Columns: `place`, the number of what lists it; `number` in there; `line`, where it stands in a table; `name` of the
    file, and a `short` one if it has another; `id` where one is given; `uri` and `version` where they are known;
    `split`; `captions`; `run` as a listing has it; `error` and `message` of what is wrong; m0, m1, … as in a listing.
    """
    carried = list(entries.schema(catalogue.metadata))[len(entries.schema()) :]
    catalogue.create("drafts", pa.schema([*_SCHEMA, *carried]))


def end(catalogue: Catalogue) -> None:
    """Lets go of what only listing needed."""
    for table in ("drafts", "found", "files", "shared"):
        catalogue.run(f"DROP TABLE IF EXISTS {table}")


def batch(place: int, numbers: Sequence[int], columns: dict[str, Any]) -> pa.Table:
    """Rows of `drafts`. A column is an Arrow array, or a list of texts."""
    count = len(numbers)
    fixed = {"place": pa.repeat(pa.scalar(place, pa.int32()), count), "number": integers(numbers)}
    given = {
        name: values if isinstance(values, pa.Array) else entries.texts(values) for name, values in columns.items()
    }
    return pa.table({**fixed, **given})


def integers(values: Sequence[int]) -> pa.Array:
    """A column of whole numbers."""
    return pa.array(np.arange(values.start, values.stop) if isinstance(values, range) else values, pa.int64())


def texts_of_each(values: Sequence[Sequence[str]]) -> pa.Array:
    """A column of lists of texts."""
    ends = itertools.accumulate(map(len, values), initial=0)
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), entries.texts([one for each in values for one in each]))


def captions_of(values: Sequence[Any], by_line: bool = False) -> pa.Array:
    """A column of captions: of a text, each of its lines or all of it; of a list, its texts; none of anything else."""

    def found(value: Any) -> list[str]:
        if isinstance(value, str):
            value = value.splitlines() if by_line else [value]
        texts = value if isinstance(value, list) else []
        return [text for text in texts if isinstance(text, str) and text.strip()]

    return texts_of_each(list(map(found, values)))


def learn_schemes(catalogue: Catalogue) -> None:
    """Makes macros: `is_absolute(name)`; and `is_foreign(name)`, whether it is a URI that nothing here reads."""
    macro = "CREATE OR REPLACE MACRO {} AS {}".format
    catalogue.run(macro("scheme(name)", f"CASE WHEN contains(name, '://') THEN regexp_extract(name, {_SCHEME}, 1) END"))
    found = [scheme for (scheme,) in catalogue.run("SELECT DISTINCT scheme(name) FROM drafts") if scheme]
    remote = [scheme for scheme in found if not paths.is_local(f"{scheme}://x")]
    foreign = [scheme for scheme in remote if not paths.has_filesystem(f"{scheme}://x")]
    within = "coalesce(list_contains({}::VARCHAR[], scheme(name)), false)".format
    catalogue.run(macro("is_absolute(name)", f"starts_with(name, '/') OR {within(remote)}"))
    catalogue.run(macro("is_foreign(name)", within(foreign)))


def quoted(text: str) -> str:
    """A text of the catalogue as it stands in SQL."""
    return "'" + text.replace("'", "''") + "'"

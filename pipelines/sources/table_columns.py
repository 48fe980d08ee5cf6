"""Which columns of a table hold images, ids and what is carried along: as flags say, or by their names."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from pipelines.sources.parquet_table import ParquetTable
from pipelines.sources.tables import Table
from pipelines.storage import parquet_cells
from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests import caption_table

_IMAGE_NAMES = ("image", "img", "picture", "photo", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes", "content")
_URI_NAMES = ("image_uri", "uri", "url", "image_url", "image_path", "path", "file_name", "filename", "file", "image")
_ID_NAMES = ("image_id", "id")
_KEY = "key"  # of what img2dataset writes, which has its images in it
CAPTIONS = "caption"  # the column of captions, by default
_TAKEN = frozenset((*caption_table.COLUMNS, *caption_table.SCORES, caption_table.ATTENTION))


@dataclasses.dataclass(frozen=True)
class Columns:
    """Which columns of a table hold what.

    Attributes:
      uri: names or URIs of images.
      image: images themselves, in Parquet: bytes, or Hugging Face's struct of bytes and path; of samples, their ending.
      id: ids; by default `image_id` or `id` where there is one.
      metadata: those to be carried to the output, each NAME, or NAME=NEW to give it another name there.
      captions: captions, a text or a list of texts; empty for the default of the place; None where none are wanted.
    """

    uri: str | None = None
    image: str | None = None
    id: str | None = None
    metadata: tuple[str, ...] = ()
    captions: str | None = None

    def given(self) -> dict[str, Any]:
        """The columns that were given, by flag."""
        flags = {"uri": self.uri, "image": self.image, "id": self.id, "metadata": list(self.metadata)}
        names = {"metadata": "metadata_columns"}
        return {names.get(flag, f"{flag}_column"): value for flag, value in flags.items() if value}

    def check(self) -> None:
        """Raises InputError where the flags contradict each other, or give a column a name that the output has."""
        if self.uri and self.image:
            raise InputError("--uri_column, --image_column: expected one of them, found both")
        names = [new for _, new in self.carried()]
        for (name, new), given in zip(self.carried(), self.metadata, strict=True):
            if not name or not new:
                raise InputError(f"--metadata_columns: expected NAME or NAME=NEW, found {given!r}")
            if new in _TAKEN or names.count(new) > 1:
                whose = "the caption table's own" if new in _TAKEN else "given twice"
                raise InputError(
                    f"--metadata_columns: expected names that are not taken, found {new!r}, which is {whose}; "
                    f"give the column another name in the output, for example {name}=input_{new}"
                )

    def wanted(self) -> list[str]:
        """Names that the columns of a table may have."""
        given = [self.uri, self.image, self.id, self.captions, *(name for name, _ in self.carried())]
        return list(dict.fromkeys([*filter(None, given), *_URI_NAMES, *_ID_NAMES]))

    def carried(self) -> list[tuple[str, str]]:
        """(name in the table, name in the output) of the columns that are carried along."""
        pairs = [given.partition("=") for given in self.metadata]
        return [(name, new if equals else name) for name, equals, new in pairs]


NO_COLUMNS = Columns()


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The columns of one table.

    Attributes:
      image: the column of bytes; None where names are given.
      name: the column, or leaf, of names and URIs; None for bytes without any.
      id: None where there is none.
      metadata: in the order of the flag.
      captions: None where none are wanted.
    """

    image: str | None
    name: str | None
    id: str | None
    metadata: tuple[str, ...]
    captions: str | None = None


def choose(table: Table, path: str, columns: Columns) -> Chosen:
    """The columns of a table.

    Raises:
      InputError: a column is not there or of another type, or none looks like images; tells which there are.
    """
    found = ", ".join(map(repr, table.columns[:30])) or "no columns"
    metadata = tuple(name for name, _ in columns.carried())
    captions = None if columns.captions is None else columns.captions or CAPTIONS
    wanted = [("uri_column", columns.uri), ("image_column", columns.image), ("id_column", columns.id)]
    wanted.append(("caption_field", captions))
    for flag, name in [*wanted, *(("metadata_columns", name) for name in metadata)]:
        if name is not None and name not in table.columns:
            raise InputError(f"--{flag}: {path}: expected a column {name!r}, found {found}")
    image, name = columns.image or _guess_image(table, columns), columns.uri
    id_names = (*_ID_NAMES, _KEY) if image else _ID_NAMES
    item_id = columns.id or next((name for name in id_names if name in table.columns), None)
    if image:
        leaf = isinstance(table, ParquetTable) and parquet_cells.bytes_leaf(table.schema, image)
        if not leaf:
            kind = f"one of type {table.types([image])[0]}"
            raise InputError(
                f"--image_column: {path}: expected a Parquet column of bytes, found {kind}; --uri_column is for names"
            )
        has_path = leaf != image and table.types([image])[0].get_field_index("path") >= 0
        return Chosen(image, f"{image}.path" if has_path else None, item_id, metadata, captions)
    name = name or next((one for one in _URI_NAMES if one in table.columns and _is_text(table, one)), None)
    if name is None:
        raise InputError(
            f"--images: {path}: expected a column of images, found {found}; say which it is with --uri_column (names "
            "or URIs) or --image_column (bytes, in Parquet)"
        )
    if not _is_text(table, name):
        kind = table.types([name])[0]
        raise InputError(f"--uri_column: {path}: expected text in column {name!r}, found type {kind}")
    return Chosen(None, name, item_id, metadata, captions)


def _guess_image(table: Table, columns: Columns) -> str | None:
    """A Parquet column of bytes that is called so, or the only one in a table without a column of names."""
    if columns.uri or not isinstance(table, ParquetTable):
        return None
    holding = [name for name in table.columns if parquet_cells.bytes_leaf(table.schema, name)]
    named = [name for wanted in _IMAGE_NAMES for name in holding if name.lower() == wanted]
    if not named and len(holding) == 1 and not any(one in table.columns and _is_text(table, one) for one in _URI_NAMES):
        return holding[0]
    return next(iter(named), None)


def _is_text(table: Table, name: str) -> bool:
    import pyarrow as pa

    kind = table.types([name])[0]
    mixed = not isinstance(table, ParquetTable)  # whose single values are checked
    is_text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    return mixed or any(fits(kind) for fits in is_text)


def merge_types(tables: Iterable[tuple[str, list[Any]]], names: list[str]) -> list[Any]:
    """The Arrow types of carried columns over all tables.

    Args:
      tables: (path, types) of each.
      names: of the columns in the output.

    Raises:
      InputError: two tables do not agree.
    """
    import pyarrow as pa

    merged = [(pa.null(), "")] * len(names)
    for path, types in tables:
        for index, kind in enumerate(types):
            known, where = merged[index]
            both = _wider(known, kind)
            if both is None:
                raise InputError(
                    f"--metadata_columns: expected one type in all tables, found {names[index]!r} as {known} in "
                    f"{where} and as {kind} in {path}"
                )
            merged[index] = both, where or path
    return [pa.string() if pa.types.is_null(kind) else kind for kind, _ in merged]


def _wider(one: Any, other: Any) -> Any:
    """A type that holds both; None where there is none."""
    import pyarrow as pa

    is_integer, is_float = pa.types.is_signed_integer, pa.types.is_floating
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if is_integer(one) and is_integer(other):
        return pa.int64()
    if all(is_integer(kind) or is_float(kind) for kind in (one, other)):
        return pa.float64()
    if {one, other} == {pa.string(), pa.large_string()}:
        return pa.large_string()
    return None

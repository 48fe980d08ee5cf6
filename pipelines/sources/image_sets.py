"""What `pipelines.caption --images` takes: files, directories, archives and tables in any mix, as one source."""

from __future__ import annotations

import dataclasses
import itertools
import posixpath
from collections.abc import Collection, Sequence
from typing import Any

from pipelines.listing.catalogue import Catalogue
from pipelines.listing.entries import escape, unescape
from pipelines.sources import drafts, tables
from pipelines.sources.drafts import quoted
from pipelines.sources.image_files import FilePlace, common_directory, name_below
from pipelines.sources.image_ids import learn_names
from pipelines.sources.image_lists import ImageList
from pipelines.sources.locations import Locations
from pipelines.sources.places import Place, forget, open_places
from pipelines.sources.sample_places import SamplePlace, Samples, open_samples
from pipelines.sources.table_columns import NO_COLUMNS, Columns, merge_types
from tfrecords_schema.errors import InputError, blaming
from tfrecords_schema.storage import paths

_NO_END = 1 << 62
_IN_ORDER = """
    UPDATE drafts SET number = sorted.number
    FROM (
        SELECT name, row_number() OVER (ORDER BY name) - 1 AS number FROM drafts WHERE place = {place}
    ) AS sorted
    WHERE drafts.place = {place} AND drafts.name = sorted.name
"""
_FOUND_AGAIN = """
    DELETE FROM drafts WHERE rowid IN (
        SELECT rowid FROM drafts WHERE uri IS NOT NULL
        QUALIFY row_number() OVER (PARTITION BY name ORDER BY place, number) > 1
    )
"""
_INSERT_FILES = """
    INSERT INTO entries BY NAME SELECT * {replaced} FROM (
    SELECT 'captions' AS split, {position} AS position, run, coalesce(id, id_of({below})) AS id, uri, version,
      CASE WHEN error IS NOT NULL THEN 'list' END AS stage, error, message, coalesce(captions, []) AS captions{carried}
    FROM drafts WHERE uri IS NOT NULL AND {position} < {end})
"""


@dataclasses.dataclass(frozen=True)
class ImageSets:
    """The images that --images means.

    Attributes:
      images: patterns, directories, zip files, image files, tables and COCO JSONs.
      root: directories, zip files and patterns in which names in tables are looked up; by default the table's own
        directory.
      columns: of the tables.
      excluding: a directory whose files are passed over: the output, which may lie below the images.
      limit: only so many, from the beginning.
      rows_together: so many rows, or members of a zip or tar file, that hold images are read together, by the worker
        that makes their shard.
      first_place: the number of the first place, where there are others in the catalogue.
      replaced: SQL, `REPLACE (… AS split)`, of columns of the listing that are to be others.
    """

    images: tuple[str, ...]
    root: tuple[str, ...] = ()
    columns: Columns = NO_COLUMNS
    excluding: str = ""
    limit: int | None = None
    rows_together: int = 1000
    first_place: int = 0
    replaced: str = ""

    def metadata_fields(self) -> list[tuple[str, Any]]:
        """(name, Arrow type) of the columns that Items' metadata hold. Raises InputError as `list`."""
        forget()
        self.columns.check()
        names = [name for _, name in self.columns.carried()]
        if not names:
            return []
        places = self._places()
        opened = [place for place in places.values() if isinstance(place, ImageList)]
        types = [(table.path, kinds) for table in opened if (kinds := table.metadata_types()) is not None]
        if samples := _samples(places):
            types.append((samples[0][1].path, self._open_samples(samples).types()))
        return list(zip(names, merge_types(types, names), strict=True))

    def list_into(self, catalogue: Catalogue) -> None:
        """Lists all images, in the order of --images, those of a directory or pattern by name; a file found twice once.

        Says on the screen which files were passed over.

        Raises:
          InputError: a place holds no images or is none, a table is not as expected, or a flag does not fit.
        """
        places = self._places()
        lists = {number: place for number, place in places.items() if isinstance(place, ImageList)}
        samples = _samples(places)
        self._check_flags(lists.values(), bool(samples))
        with blaming("--root"):
            root = Locations(catalogue, self.root) if self.root else None
        drafts.begin(catalogue)
        found = (
            place.drafts(number, catalogue.metadata)
            if isinstance(place, ImageList)
            else place.drafts(number, self.excluding, self.rows_together)
            for number, place in places.items()
            if not isinstance(place, SamplePlace)
        )
        catalogue.fill("drafts", itertools.chain.from_iterable(found))
        if samples:
            catalogue.fill("drafts", self._open_samples(samples).drafts(catalogue.metadata, self.rows_together))
        for number, place in places.items():
            # Whose files come in no order.
            if isinstance(place, FilePlace) and place.kind != "image" and paths.is_remote(place.given):
                catalogue.run(_IN_ORDER.format(place=number))
        drafts.learn_schemes(catalogue)
        prefixes = _prefixes(catalogue, {number: place.path for number, place in lists.items()})
        below = self._learn_ids(catalogue, list(places.values()))
        if len(places) - len(lists) > 1:
            catalogue.run(_FOUND_AGAIN)
        last = f"SELECT {drafts.POSITION} FROM drafts ORDER BY 1 LIMIT 1 OFFSET {self.limit}"
        end = next((end for (end,) in catalogue.run(last)), _NO_END) if self.limit is not None else _NO_END
        given = {"below": below, "end": end, "replaced": self.replaced}
        carried = "".join(f", m{index}" for index in range(len(catalogue.metadata)))
        catalogue.run(_INSERT_FILES.format(carried=carried, position=drafts.POSITION, **given))
        for number, table in lists.items():
            given |= {"prefix": prefixes[number], "together": self.rows_together}
            where = root or Locations(catalogue, (posixpath.dirname(table.path) or ".",))
            table.insert(catalogue, number, where, bool(root), given)
        drafts.end(catalogue)
        catalogue.set_duplicates_aside()

    def _learn_ids(self, catalogue: Catalogue, places: Sequence[Place]) -> str:
        """Makes the macro `id_of`; returns SQL of what it is to be given. Files and names in tables share it."""
        directory = common_directory(place.root() for place in places if isinstance(place, FilePlace))
        first, last = catalogue.run(
            "SELECT min(name), max(name) FROM drafts WHERE uri IS NULL AND is_absolute(name) AND NOT is_foreign(name)"
        )[0]
        # What the first and the last have in common, all between them have.
        common = common_directory(posixpath.dirname(unescape(name)) for name in (first, last) if name)
        below = f"CASE WHEN uri IS NULL THEN {name_below(common)} ELSE {name_below(directory)} END"
        learn_names(catalogue, f"SELECT {below} FROM drafts WHERE id IS NULL AND name IS NOT NULL")
        return below

    def describe(self) -> dict[str, Any]:
        """The options of the source that a later run is compared with; flags that are not given are left out."""
        given = {"images": list(self.images), "root": list(self.root), **self.columns.given(), "limit": self.limit}
        return {flag: value for flag, value in given.items() if value not in (None, [])}

    def bytes(self, catalogue: Catalogue) -> int | None:
        """The size of all images in bytes, as far as listings tell; None where they tell nothing."""
        size = "try_cast(split_part(version, ':', 1) AS BIGINT)"
        lists = {number: place for number, place in self._places().items() if isinstance(place, ImageList)}
        in_cell = f"(run IS NOT NULL AND list_contains({list(lists)}::BIGINT[], position >> 40))"
        usable = f"count(*) FILTER ({in_cell}), sum({size}) FILTER (NOT {in_cell} AND error IS NULL)"
        cells, total = catalogue.run(f"SELECT {usable} FROM entries")[0]
        total = int(total or 0)
        if cells:
            stored = [place.image_bytes() for place in lists.values()]
            total += sum(size for _, size in stored) * cells // sum(rows for rows, _ in stored)
        return total or None

    def _check_flags(self, lists: Collection[ImageList], has_samples: bool) -> None:
        of_samples = ("image_column", "metadata_columns") if has_samples else ()
        given = [flag for flag in (*self.columns.given(), *["root"] * bool(self.root)) if flag not in of_samples]
        if given and not (any(one.is_table for one in lists) or (lists and given == ["root"])):
            kinds = ", ".join(tables.ENDINGS)
            raise InputError(f"--{given[0]}: expected a table ({kinds}) among --images, found none; leave it out")

    def _places(self) -> dict[int, Place]:
        return dict(enumerate(open_places(self.images, self.columns), self.first_place))

    def _open_samples(self, samples: list[tuple[int, SamplePlace]]) -> Samples:
        return open_samples(tuple(samples), self.columns)


def _samples(places: dict[int, Place]) -> list[tuple[int, SamplePlace]]:
    return [(number, place) for number, place in places.items() if isinstance(place, SamplePlace)]


def _prefixes(catalogue: Catalogue, given: dict[int, str]) -> dict[int, str]:
    """For each table SQL of what ids of its rows begin with: an id of its own, made as those of images are."""
    absolute = {place: paths.absolute(path) for place, path in given.items()}
    below = name_below(common_directory(map(posixpath.dirname, absolute.values())))
    known = ", ".join(f"({place}, {quoted(escape(path))})" for place, path in absolute.items()) or "(0, '')"
    query = f"SELECT place, {below} AS name FROM (VALUES {known}) AS known(place, name)"
    learn_names(catalogue, f"SELECT name FROM ({query})")
    return {place: quoted(prefix) for place, prefix in catalogue.run(f"SELECT place, id_of(name) FROM ({query})")}

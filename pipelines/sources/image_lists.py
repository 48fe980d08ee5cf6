"""Files that list images: from an entry to an Item, by a name that is looked up, or by bytes in its cell."""

from __future__ import annotations

import dataclasses
import functools
import posixpath
from collections.abc import Callable, Iterator
from typing import Any

from pipelines.items import ImageError, Item
from pipelines.sources.image_files import common_directory
from pipelines.sources.locations import Locations, open_locations
from pipelines.storage import paths
from tfrecords_schema.errors import InputError
from tfrecords_schema.shards import shard_of

_SAMPLE = 100  # names that are looked for, to see whether images lie where they are looked for at all


@dataclasses.dataclass(frozen=True)
class Overview:
    """What one pass over a table tells.

    Attributes:
      rows: how many there are.
      common: the deepest directory that all of its absolute names are below; None where it has none.
      sample: its first relative names.
      has_others: whether some of its images are found without looking for a relative name.
      named: whether ids of some follow from their names.
    """

    rows: int
    common: str | None = None
    sample: tuple[str, ...] = ()
    has_others: bool = False
    named: bool = False


@dataclasses.dataclass(frozen=True)
class Entry:
    """A row of a table before its file is looked up.

    Attributes:
      number: of the row, from 0.
      where: "line 17 of images.csv".
      name: of the file, or its URI; None where there is none.
      id: None where no column gives one.
      problem: what was expected and found, where the row is wrong.
      in_cell: whether the image itself stands in the row.
    """

    number: int
    where: str
    name: str | None = None
    id: str | None = None
    metadata: tuple[Any, ...] = ()
    problem: str | None = None
    in_cell: bool = False


class ImageList:
    """A file that lists images; see `ImageTable` and `CocoImages`.

    Attributes:
      path: as given.
      version: of the file.
      has_cells: whether images stand in it.
      takes_ids: whether its rows have ids.
      width: how many columns are carried along.
    """

    path: str
    version: str
    has_cells: bool
    takes_ids: bool
    width: int

    def entries(self) -> Iterator[Entry]:
        """Its rows."""
        raise NotImplementedError

    @functools.cached_property
    def overview(self) -> Overview:
        """What is in it, learned once. Raises InputError where Beam can read none of its images."""
        return self._look_through()

    def _look_through(self) -> Overview:
        """Reads all of it."""
        rows, common, has_others, named = 0, None, False, False
        sample: list[str] = []
        schemes: dict[str, bool] = {}  # whether Beam reads them
        foreign: tuple[str, str] | None = None
        for entry in self.entries():
            rows += 1
            name = entry.name
            has_others = has_others or entry.in_cell
            if name is None or entry.problem:
                continue
            named = named or entry.id is None
            if not paths.is_absolute(name):
                if len(sample) < _SAMPLE:
                    sample.append(name)
                continue
            if "://" in name:
                scheme = name.partition("://")[0]
                if scheme not in schemes:
                    schemes[scheme] = paths.has_filesystem(name)
                if not schemes[scheme]:
                    foreign = foreign or (name, entry.where)
                    continue  # will be rejected, when it cannot be read
            has_others = True
            if common is None or not name.startswith(common + "/"):
                directory = posixpath.dirname(name)
                common = directory if common is None else common_directory((common, directory))
        if foreign and not has_others and not sample:
            raise _foreign(*foreign)
        return Overview(rows, common, tuple(sample), has_others, named)

    def names(self) -> Iterator[str]:
        """Those that ids follow from."""
        for entry in self.entries() if self.overview.named else ():
            if entry.id is None and entry.name is not None:
                yield entry.name

    def locations(self, root: Locations | None) -> Locations:
        """Where its names are looked up: below `root`, or else beside it."""
        return root or open_locations((posixpath.dirname(self.path) or ".",))

    def check(self, root: Locations | None) -> None:
        """Raises InputError where not one of its first names is found."""
        sample = self.overview.sample
        if not sample or self.overview.has_others:
            return
        locations = self.locations(root)
        for name in sample:
            found = locations.find(name)
            if isinstance(found, ImageError) or found.version or not paths.is_local(found.uri):
                return
        where = "in --root" if root else f"beside {self.path}"
        raise InputError(
            f"--root: expected the images of {self.path}, found none of its first {len(sample)} {where}, such as "
            f"{sample[0]!r}; give the directories or zip files that they are in with --root"
        )

    def items(
        self,
        prefix: str,
        id_of: Callable[[str], str],
        root: Locations | None,
        rows_together: int,
        positions: Iterator[int],
    ) -> Iterator[Item]:
        """Its images.

        Args:
          prefix: of ids where neither a column nor a name gives one.
          id_of: from a name to the id of an image that no column gives one.
          root: where names are looked up, if not beside it.
          rows_together: how many rows with bytes make a run.
          positions: in the source.
        """
        locations = self.locations(root)
        # Tables begin anywhere, but one and the same, so that another one beside them moves none of their rows.
        start = shard_of(paths.absolute(self.path), 1 << 32)
        for entry in self.entries():
            own_id = f"{prefix}-{entry.number:08d}"
            uri, version, run = self.path, self.version, None
            problem: ImageError | None = None
            if entry.problem:
                item_id = entry.id or own_id
                problem = ImageError("list", "BadEntry", f"{entry.where}: {entry.problem}")
            elif entry.in_cell:
                item_id = entry.id or own_id
                uri, run = self._cell_uri(entry.number), start + entry.number // rows_together
            else:
                name = str(entry.name)  # there is one where there is no problem
                item_id = entry.id or id_of(name)
                found = locations.find(name)
                if isinstance(found, ImageError):
                    uri, version, problem = name, "", found
                else:
                    uri, version = found.uri, found.version
            yield Item(
                item_id,
                uri,
                problem=problem,
                version=version,
                position=next(positions),
                run=run,
                metadata=entry.metadata or (None,) * self.width,
            )

    def _cell_uri(self, row: int) -> str:
        raise NotImplementedError


def _foreign(name: str, where: str) -> InputError:
    scheme = name.partition("://")[0]
    way = paths.way_to_read(name)
    return InputError(f"--images: {where}: expected files that Beam reads, found {scheme}:// in {name[:100]!r}; {way}")

"""A feature directory in place of images: captions again, for another search or model, without extracting again."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from pipelines.captions.captioner import BATCH
from pipelines.items import ImageError, Item, Reject
from pipelines.listing.catalogue import Catalogue
from pipelines.listing.entries import escape
from pipelines.vision import devices
from pipelines.vision.extraction import FeatureBatch
from pipelines.vision.reading import is_inside_a_file
from tfrecords_schema import record, shards
from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests.features_info import FEATURES_INFO, FeaturesInfo, ShardInfo, open_info
from tfrecords_schema.quiet import import_tensorflow
from tfrecords_schema.storage import faults, files, paths
from tfrecords_schema.text import one_line


def open_features(directory: str) -> FeaturesInfo:
    """What a feature directory says of itself. Raises InputError where it is none."""
    return open_info(directory, files.read_text, "--features")


@dataclasses.dataclass(frozen=True)
class FeatureRecords:
    """A source of the images whose features are stored.

    No record is read to list them: an Item is the place of a record, `train-00000-of-00008.tfrecord#17`; whoever reads
    the record learns the image's id.

    Attributes:
      split: only these; all by default.
      limit: only the first so many.
      rows_together: about so many records that follow each other are read together.
    """

    directory: str
    split: str | None = None
    limit: int | None = None
    rows_together: int = 1000

    def list_into(self, catalogue: Catalogue) -> None:
        """Lists the records. Raises InputError where there is no such split."""
        if self.split and not self._shards():
            known = ", ".join(open_features(self.directory).splits)
            raise InputError(f"--split: expected one of {known}, which {self.directory} has, found {self.split}")
        catalogue.add(self.read())

    def read(self) -> Iterator[Item]:
        """Items in the order of the records."""
        total = min(sum(shard.records for shard in self._shards()), self.limit or 1 << 62)
        runs = shards.shard_count(total, self.rows_together)  # of equal lengths
        for position, (shard, row) in enumerate(itertools.islice(self._records(), self.limit)):
            name = f"{shard.name}#{row}"
            yield Item(
                id=name,
                uri=paths.join(self.directory, name),
                version=shard.sha256,
                position=position,
                run=position * runs // total,
            )

    def describe(self) -> dict[str, Any]:
        """The options of the source that a later run is compared with."""
        return {"features": self.directory, "split": self.split, "limit": self.limit}

    def bytes(self, _: Catalogue) -> int:
        """The size of all shards in bytes."""
        return sum(shard.bytes for shard in self._shards())

    def metadata_fields(self) -> list[tuple[str, Any]]:
        """None: records carry nothing along."""
        return []

    def _shards(self) -> list[ShardInfo]:
        splits = open_features(self.directory).splits
        return [shard for name, split in splits.items() if self.split in (None, name) for shard in split.shards]

    def _records(self) -> Iterator[tuple[ShardInfo, int]]:
        return ((shard, row) for shard in self._shards() for row in range(shard.records))


@dataclasses.dataclass(frozen=True)
class StoredFeatures:
    """A `rows.FeatureMaker` that reads records. Nothing has to be loaded.

    Attributes:
      has_image: whether the records hold the image too.
      retries: how often a read is tried again after a passing fault.
    """

    shape: tuple[int, ...]
    dtype: str
    has_image: bool = False
    retries: int = faults.READ_RETRIES

    def load(self) -> StoredFeatures:
        """This object: stored features need no network."""
        devices.configure_gpu(import_tensorflow())  # before the captioner takes all of it
        return self

    def batches(self, items: list[Item], clock: Any, load: Any) -> Iterator[FeatureBatch | Reject]:
        """The items, whose records follow each other in a few files."""
        for path, run in itertools.groupby(items, key=lambda item: item.uri.rpartition("#")[0]):
            pending = list(run)
            batch: list[tuple[Item, dict[str, Any]]] = []
            done = 0
            try:
                for item, values in self._read(path, pending):
                    done += 1
                    if isinstance(values, ImageError):
                        yield values.of(item.id, item.uri)
                        continue
                    batch.append((item, values))
                    if len(batch) == BATCH:
                        yield self._batch(batch)
                        batch = []
                problem = ImageError("read", "Absent", f"{path} has fewer records than {FEATURES_INFO} says")
            except FileNotFoundError:
                problem = ImageError("read", "Absent", "no such file")
            except faults.UnreachableError as error:
                problem = ImageError("read", "Unreachable", str(error))
            except (OSError, ValueError) as error:
                if faults.is_of_the_machine(error):
                    raise
                problem = ImageError("read", "DamagedRecord", str(error))
            if batch:
                yield self._batch(batch)
            for item in pending[done:]:
                yield problem.of(item.id, item.uri)

    def some_can_be_read(self, items: list[Item]) -> bool:
        """Whether any of these records, which could not be read before, can be by now."""
        at_once = dataclasses.replace(self, retries=0)
        return any(isinstance(found, FeatureBatch) for found in at_once.batches(items, None, None))

    def _read(self, path: str, items: list[Item]) -> Iterator[tuple[Item, dict[str, Any] | ImageError]]:
        import_tensorflow()  # quietly, before `record` does
        wanted = {int(item.uri.rpartition("#")[2]): item for item in items}
        last = max(wanted)
        with faults.retries(self.retries):
            handle = files.open_binary(path)
        with handle:
            frames = enumerate(shards.read_frames(handle))
            while True:
                with faults.retries(self.retries):  # only while it reads, and not while others have their turn
                    row, data = next(frames, (None, None))
                if row in wanted:
                    yield wanted[row], self._decode(path, data)
                if row in (None, last):
                    return

    def _decode(self, path: str, data: bytes | None) -> dict[str, Any] | ImageError:
        """The record, or why it cannot be used: what a checksum cannot tell, since it can be made good."""
        if data is None:
            return ImageError("read", "DamagedRecord", "its data do not match their checksum")
        try:
            values = record.decode(data, self.shape, self.dtype, has_image=self.has_image)
        except (DecodeError, KeyError, ValueError) as error:
            return ImageError("read", "DamagedRecord", one_line(error))
        if not np.isfinite(values["image/feature"]).all():
            return ImageError("extract", "NotFinite", "its feature holds infinity or NaN")
        named = shards.parse_shard_name(path.rpartition("/")[2])
        # What stands together in a tar or Parquet file is together in a shard, whatever its ids are.
        is_by_id = not is_inside_a_file(values["image/uri"])
        if named and is_by_id and shards.shard_of(escape(values["image/id"]), named[2]) != named[1]:
            return ImageError("read", "DamagedRecord", f"image {values['image/id']!r} belongs in another shard")
        return values

    def _batch(self, batch: list[tuple[Item, dict[str, Any]]]) -> FeatureBatch:
        items = [
            dataclasses.replace(
                item, id=values["image/id"], uri=values["image/uri"], captions=tuple(values["caption/text"])
            )
            for item, values in batch
        ]
        sizes = [(values["image/height"], values["image/width"]) for _, values in batch]
        return FeatureBatch(items, sizes, np.stack([values["image/feature"] for _, values in batch]))

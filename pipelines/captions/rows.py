"""One shard of the caption table: features -> captions -> Parquet rows."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Protocol

from pipelines.captions.captioner import BATCH, Caption, Captioner
from pipelines.captions.given_columns import NO_GIVEN_COLUMNS, GivenColumns
from pipelines.items import ImageError, Item, Reject, printable
from pipelines.output.merging import EarlierShardError, in_order
from pipelines.output.sharding import ShardJob, Written
from pipelines.vision.extraction import FeatureBatch, extract, regrouped
from pipelines.vision.extractors import Extractor
from pipelines.vision.reading import Reading, some_can_be_read
from tfrecords_schema.manifests import caption_table
from tfrecords_schema.storage import files
from tfrecords_schema.vocabulary import END, SPECIAL_WORDS

# A row group is what a reader takes at once: many rows for whoever reads one column, and not too many bytes.
_ROWS_PER_GROUP = 8192
_NO_CAPTION = ImageError(
    "caption", "NoCaption", "the model has no caption of finite probability that the rules for its words allow"
)


class FeatureMaker(Protocol):
    """Where features come from. Small and picklable; `load` returns one that holds what is heavy."""

    def load(self) -> Any:
        """The same, loaded."""

    def batches(self, items: list[Item], job: ShardJob, load: Callable[[], Any]) -> Iterator[FeatureBatch | Reject]:
        """Every item once, in a batch of features or as a Reject; `load` gives the loaded one."""

    def some_can_be_read(self, items: list[Item]) -> bool:
        """Whether any of these items, whose reading failed before, can be read by now."""


@dataclasses.dataclass(frozen=True)
class ExtractedFeatures:
    """Features of images, by a network.

    Attributes:
      dtype: that features were stored in for training. They are rounded to it here too, so that the decoder is given
        the very numbers that a feature directory of the same images would hold.
    """

    extractor: Extractor
    reading: Reading
    dtype: str

    def load(self) -> ExtractedFeatures:
        """With the network's weights."""
        return dataclasses.replace(self, extractor=self.extractor.load())

    def batches(
        self, items: list[Item], job: ShardJob, load: Callable[[], ExtractedFeatures]
    ) -> Iterator[FeatureBatch | Reject]:
        """Reads, decodes and extracts."""
        loaded = lambda: load().extractor  # noqa: E731
        return extract(items, self.extractor, loaded, self.reading, job.clock, self.dtype)

    def some_can_be_read(self, items: list[Item]) -> bool:
        """As FeatureMaker's."""
        return some_can_be_read(items)


@dataclasses.dataclass(frozen=True)
class RowMaker:
    """A `sharding.ShardMaker` of caption rows.

    Attributes:
      features, captioner: not yet loaded; the captioner was trained on these features.
      schema: Arrow's, of the table.
      further: the names of the columns that Items' metadata are the values of.
      word_scores: whether captions are told word by word.
      given: columns that shape or judge captions.
    """

    features: FeatureMaker
    captioner: Captioner
    schema: Any
    further: tuple[str, ...] = ()
    word_scores: bool = False
    given: GivenColumns = NO_GIVEN_COLUMNS
    suffix: str = ".parquet"
    keeps_rows: bool = True

    def load(self) -> RowMaker:
        """Both models, loaded."""
        return dataclasses.replace(self, features=self.features.load(), captioner=self.captioner.load())

    def follows_from(self, context: dict[str, Any]) -> dict[str, Any]:
        """All of it; there is none."""
        return context

    def some_can_be_read(self, items: list[Item]) -> bool:
        """As ShardMaker's."""
        return self.features.some_can_be_read(items)

    def make(self, job: ShardJob) -> Iterator[Written | Reject]:
        """Writes one row for each image."""
        earlier = _Earlier(job.earlier, self.schema) if job.earlier else None
        with _RowWriter(job.handle, self.schema) as writer:
            for outcome in in_order(job.items, job.kept, self._captioned(job), BATCH):
                if isinstance(outcome, Reject):
                    yield outcome
                    continue
                positions, captions = [], 0
                for is_kept, group in itertools.groupby(outcome, lambda pair: pair[1] is None):
                    pairs = list(group)
                    if is_kept and earlier:
                        rows = earlier.rows([job.kept[item.position] for item, _ in pairs])
                    else:
                        yield from (made for _, made in pairs if isinstance(made, Reject))
                        pairs = [(item, made) for item, made in pairs if isinstance(made, dict)]
                        rows = _table([made for _, made in pairs if isinstance(made, dict)], self.schema)
                    with job.clock.stage("write"):
                        writer.write(rows)
                    positions += [item.position for item, _ in pairs]
                    captions += sum(map(len, rows["captions"]))
                yield Written(positions, captions)

    def _captioned(self, job: ShardJob) -> Iterator[Reject | list[tuple[Item, dict[str, Any] | Reject]]]:
        """All images but those kept, each with its row, or with why it has none."""
        items = [item for item in job.items if item.position not in job.kept]
        for outcome in regrouped(self.features.batches(items, job, lambda: job.load().features), BATCH):
            if isinstance(outcome, Reject):
                yield outcome
                continue
            with job.clock.stage("caption"):
                yield self._rows(outcome, job.load().captioner)

    def _rows(self, batch: FeatureBatch, captioner: Captioner) -> list[tuple[Item, dict[str, Any] | Reject]]:
        """Each image with its row, or with why it has none."""
        items, prefixes = batch.items, []
        problems: dict[int, ImageError] = {}
        if self.given.prefix is not None:
            found = self.given.prefixes(items, captioner.vocabulary, captioner.search.max_length)
            problems = {row: one for row, one in enumerate(found) if isinstance(one, ImageError)}
            prefixes = [() if isinstance(one, ImageError) else one for one in found]
        captions = captioner(batch.features, [item.id for item in items], prefixes)
        made: list[tuple[Item, dict[str, Any] | Reject]] = []
        for row, (item, size, said) in enumerate(zip(items, batch.sizes, captions, strict=True)):
            problem = problems.get(row) or (None if said else _NO_CAPTION)
            made.append((item, problem.of(item.id, item.uri) if problem else self._row(item, size, said)))
        if self.given.score is not None:
            scores = captioner.score(batch.features, self.given.scored(items))
            for (_, one), score in zip(made, scores, strict=True):
                if isinstance(one, dict) and score:
                    one |= dict(zip(caption_table.SCORES, score, strict=True))
        return made

    def _row(self, item: Item, size: tuple[int, int], captions: list[Caption]) -> dict[str, Any]:
        best = captions[0]
        row = {
            "image_id": printable(item.id),
            "image_uri": printable(item.uri),
            "height": size[0],
            "width": size[1],
            "caption": best.text,
            "log_prob": best.log_prob,
            "captions": [self._entry(caption) for caption in captions],
            **dict(zip(self.further, item.metadata, strict=True)),
        }
        if best.attention is not None:
            pairs = zip(best.words, best.attention, strict=True)
            row[caption_table.ATTENTION] = [{"word": word, "weights": weights} for word, weights in pairs]
        return row

    def _entry(self, caption: Caption) -> dict[str, Any]:
        entry: dict[str, Any] = {"caption": caption.text, "log_prob": caption.log_prob}
        if self.word_scores:
            # One that was cut has no END, which zip leaves out then.
            pairs = zip((*caption.words, SPECIAL_WORDS[END]), caption.word_log_probs, strict=False)
            entry[caption_table.WORDS] = [{"word": word, "log_prob": log_prob} for word, log_prob in pairs]
        return entry


def _table(rows: list[dict[str, Any]], schema: Any) -> Any:
    import pyarrow as pa

    return pa.Table.from_pylist(rows, schema=schema)


class _Earlier:
    """The rows of an earlier shard."""

    def __init__(self, path: str, schema: Any):
        import pyarrow.parquet as pq

        with _earlier(path):
            with files.open_binary(path) as handle:
                self._rows = pq.read_table(handle)
            self._rows = self._rows.select(schema.names).cast(schema)
        self._path = path

    def rows(self, numbers: list[int]) -> Any:
        """Some of them, as a table."""
        with _earlier(self._path):
            return self._rows.take(numbers)


@contextlib.contextmanager
def _earlier(path: str) -> Iterator[None]:
    try:
        yield
    except (OSError, LookupError, ValueError) as error:  # Arrow's are all three
        raise EarlierShardError(f"{path}: {error}") from None


class _RowWriter(contextlib.AbstractContextManager):
    """Rows -> a Parquet file; its bytes follow from the rows alone, and not from how many came together."""

    def __init__(self, handle: BinaryIO | io.RawIOBase, schema: Any):
        import pyarrow.parquet as pq

        self._waiting: Any = schema.empty_table()
        self._writer = pq.ParquetWriter(handle, schema, compression="zstd")

    def write(self, rows: Any) -> None:
        """Appends a table."""
        import pyarrow as pa

        self._waiting = pa.concat_tables([self._waiting, rows])
        while self._waiting.num_rows >= _ROWS_PER_GROUP:
            self._flush(_ROWS_PER_GROUP)

    def _flush(self, size: int) -> None:
        self._writer.write_table(self._waiting.slice(0, size).combine_chunks(), row_group_size=_ROWS_PER_GROUP)
        self._waiting = self._waiting.slice(size)

    def __exit__(self, error_type, *_) -> None:
        if error_type is None:
            self._flush(_ROWS_PER_GROUP)
        self._writer.close()

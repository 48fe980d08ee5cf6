"""Each format: which valid files it starts from, and what of the product reads them, in this process."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable

from tests.fuzz import listings, readers
from tests.fuzz.oracle import Seen

Read = Callable[[pathlib.Path, pathlib.Path], Seen]


@dataclasses.dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
      parts: files and directories of the seeds, copied side by side for each case.
      targets: patterns of the files that are changed, of which one is chosen.
      read: (where the parts are, an output directory) -> what was made of them; raises as a command does.
      short: cases in `make test`.
      share: of the cases of a long run, against other formats; those that take long have fewer.
    """

    parts: tuple[str, ...]
    targets: tuple[str, ...]
    read: Read
    short: int = 30
    share: float = 1.0


_CHEAP = 150
FORMATS = {
    "captions_coco": Format(("images", "said/coco.json"), ("coco.json",), listings.captions),
    "captions_karpathy": Format(("images", "said/karpathy.json"), ("karpathy.json",), listings.captions),
    "captions_csv": Format(("images", "said/rows.csv"), ("rows.csv",), listings.captions),
    "captions_jsonl": Format(("images", "said/rows.jsonl"), ("rows.jsonl",), listings.captions),
    "table_coco": Format(("tables",), ("tables/coco.json",), listings.table),
    "table_csv": Format(("tables",), ("tables/rows.csv",), listings.table),
    "table_jsonl": Format(("tables",), ("tables/rows.jsonl",), listings.table),
    "table_parquet": Format(("tables",), ("tables/rows.parquet",), listings.table),
    "parquet_images": Format(("tables",), ("tables/cells.parquet", "tables/structs.parquet"), listings.table),
    "zip": Format(("zips",), ("zips/*.zip",), listings.archive),
    "images": Format(("pictures",), ("pictures/*",), readers.pictures, _CHEAP, 4),
    "features": Format(("features",), ("features/*",), readers.stored_features),
    "features_trainer": Format(("features",), ("features/*",), readers.training_data, 12, 0.3),
    "export": Format(("job/export",), ("export/*.json", "export/vocabulary.txt"), readers.model, _CHEAP),
    "saved_model": Format(
        ("job/export",), ("export/saved_model.pb", "export/variables/*"), readers.saved_model, 2, 0.03
    ),
    "output": Format(("captions", "told"), ("captions/report.json", "captions/.shards/*"), readers.earlier_output),
    "job": Format(("job", "told"), ("job/config.json", "job/samples.csv"), readers.job),
    "gallery": Format(
        ("captions",),
        ("captions/report.json", "captions/.shards/list.parquet", "captions/*.parquet"),
        readers.gallery,
        20,
    ),
    "caption_table": Format(("captions",), ("captions/report.json", "captions/*.parquet"), readers.predictions, _CHEAP),
    "predictions": Format(("predictions",), ("predictions/*",), readers.predictions, _CHEAP, 2),
    "references": Format(("said/coco.json", "said/karpathy.json"), ("*.json",), readers.references, _CHEAP),
    "word_counts": Format(("words",), ("words/word_counts.txt",), readers.words, _CHEAP, 2),
    "embeddings": Format(("words", "features"), ("words/vectors.txt",), readers.embeddings, _CHEAP),
}

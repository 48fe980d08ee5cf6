"""Each format: which valid files it starts from, and what of the product reads them, in this process."""

from __future__ import annotations

from tests.fuzz import listings, readers, whole_commands
from tests.fuzz.runner import Format, Read

_CHEAP = 100
_CAPTIONS = ("captions/report.json", "captions/.shards/list.parquet", "captions/*.parquet")


def _images(*names: str) -> Format:
    folder = names[0].partition("/")[0]
    return Format((folder,), names, lambda given, output: listings.images(given, output, *names))


_OF_LISTS = {
    "captions_coco": Format(("images", "said/coco.json"), ("coco.json",), listings.captions),
    "captions_karpathy": Format(("images", "said/karpathy.json"), ("karpathy.json",), listings.captions),
    "captions_csv": Format(("images", "said/rows.csv"), ("rows.csv",), listings.captions),
    "captions_jsonl": Format(("images", "said/rows.jsonl"), ("rows.jsonl",), listings.captions),
    "table_coco": _images("tables/coco.json"),
    "table_csv": _images("tables/rows.csv"),
    "table_jsonl": _images("tables/rows.jsonl"),
    "table_parquet": _images("tables/rows.parquet"),
    "parquet_images": _images("tables/cells.parquet", "tables/structs.parquet"),
    "zip": _images("zips/0.zip", "zips/1.zip", "zips/2.zip", "zips/3.zip"),
    "tar": _images("tars/0.tar", "tars/1.tar", "tars/2.tar"),
    "captions_tar": Format(("tars",), ("tars/0.tar",), listings.tar_captions),
}
_OF_DIRECTORIES = {
    "features": Format(("features",), ("features/*",), readers.stored_features),
    "features_trainer": Format(("features",), ("features/*",), readers.training_data, 12),
    "export": Format(("job/export",), ("export/*.json", "export/vocabulary.txt"), readers.model, _CHEAP),
    "saved_model": Format(("job/export",), ("export/saved_model.pb", "export/variables/*"), readers.saved_model, 3),
    "output": Format(("captions", "told"), ("captions/report.json", "captions/.shards/*"), readers.earlier_output),
    "output_begun": Format(
        ("begun", "told"),
        ("begun/.work/options.json", "begun/.shards/*", "begun/.work/finished/*"),
        readers.earlier_output,
    ),
    "job": Format(("job", "told"), ("job/config.json", "job/samples.csv"), readers.job),
}
_OTHERS = {
    "images": Format(("pictures",), ("pictures/*",), readers.pictures, _CHEAP),
    "gallery": Format(("captions",), _CAPTIONS, readers.gallery),
    "caption_table": Format(("captions",), _CAPTIONS, readers.predictions, _CHEAP),
    "predictions": Format(("predictions",), ("predictions/*",), readers.predictions, _CHEAP),
    "references": Format(("said/coco.json", "said/karpathy.json"), ("*.json",), readers.references, _CHEAP),
    "word_counts": Format(("words",), ("words/word_counts.txt",), readers.words, _CHEAP),
    "embeddings": Format(("words", "features"), ("words/vectors.txt",), readers.embeddings, _CHEAP),
}


def _command(parts: tuple[str, ...], targets: tuple[str, ...], read: Read) -> Format:
    return Format(parts, targets, read, cases=1, timeout_s=120.0)


_COMMANDS = {
    "run_features": _command(("images", "said/rows.csv"), ("rows.csv", "images/*"), whole_commands.features),
    "run_caption_images": _command(
        ("job/export", "tables", "zips"),
        ("tables/*.parquet", "tables/*.jsonl", "zips/*"),
        whole_commands.caption_images,
    ),
    "run_caption_features": _command(
        ("job/export", "features"), ("features/*", "export/*.json"), whole_commands.caption_features
    ),
    "rerun_caption": _command(
        ("told", "job/export", "captions"),
        ("captions/*", "captions/.shards/*", "captions/rejects/*"),
        whole_commands.caption_again,
    ),
    "rerun_begun": Format(
        ("told", "job/export", "begun"),
        ("begun/.work/*", "begun/.shards/*", "begun/.work/finished/*"),
        *(whole_commands.caption_again, 1, 120.0),
        short=False,
    ),
    "run_task": Format(("features", "job"), ("features/*", "job/*"), whole_commands.task, 1, 120.0, short=False),
    "run_evaluate": _command(("captions", "said"), (*_CAPTIONS, "said/coco.json"), whole_commands.evaluate),
}
FORMATS: dict[str, Format] = {**_OF_LISTS, **_OF_DIRECTORIES, **_OTHERS, **_COMMANDS}

"""README.md of a caption table: the card by which Hugging Face's `datasets`, and their Hub, read the directory.

Its front matter says which files are what (https://huggingface.co/docs/hub/datasets-manual-configuration). The last
line has the digest of the others: a card without it, or with another one, is somebody's own, and is left.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from pipelines.output.report import totals_of
from pipelines.output.sidecars import ShardResult
from tfrecords_schema.manifests import caption_table
from tfrecords_schema.storage import files, paths

README = "README.md"
_COLUMNS = {
    "image_id": "of the image; it is in one of the two tables, once",
    "image_uri": "where the image was read from",
    "height": "pixels, upright",
    "width": "pixels",
    "caption": "the best one",
    "log_prob": "its natural log probability, summed over its words and the end",
    "captions": "all that were found, best first",
    caption_table.SCORES[0]: "log probability of the caption that came with the image",
    caption_table.SCORES[1]: "how many words it has, the end counted",
    caption_table.ATTENTION: "where the model looked, for each word of the best caption",
}
_CONFIGS = {  # by what is counted in them
    "records": """- config_name: captions
  default: true
  data_files:
  - split: train
    path: captions-*.parquet
""",
    "rejects": """- config_name: rejects
  data_files:
  - split: train
    path: rejects/*.parquet
""",
}
_CARD = """---
# license: cc-by-4.0   (yours to say: of the images' captions, and of what the model learned from)
task_categories:
- image-to-text
configs:
{configs}---

# Captions of {records:,} images

```python
from datasets import load_dataset

captions = load_dataset("THIS_DIRECTORY", split="train")
rejects = load_dataset("THIS_DIRECTORY", "rejects", split="train")  # if there are any
```

| | |
|---|---|
| images | {inputs:,} = {records:,} with captions + {rejects:,} rejected |
| captions | {captions:,} |
| model | SHA-256 `{model}` |
| features | {extractor}, layer {layer}, weights of SHA-256 `{weights}` |
| search | {search} |
| made with | {versions} |

Captions were written by a program, and nobody has read them all.

| column of `captions` | type | |
|---|---|---|
{columns}

`rejects` has the images that could not be used, with `image_id`, `image_uri`, and why: `stage`, `error`, `message`.

"""


def card(schema: Any, results: Sequence[ShardResult]) -> str:
    """The text, with its last line.

    Args:
      schema: of the table, with its metadata (see `Plan.row_maker`).
      results: of all its shards.
    """
    metadata = {key.decode(): value.decode() for key, value in schema.metadata.items()}
    spec, search = json.loads(metadata["features"]), json.loads(metadata["search"])
    # A file of words has a path, which is nobody's business.
    said = {key: value for key, value in search.items() if value not in (None, "") and key != "forbid_words"}
    totals = totals_of(results)
    text = _CARD.format(
        **totals,
        # A table without rows is an error of theirs.
        configs="".join(text for counted, text in _CONFIGS.items() if totals[counted]),
        model=metadata["model_digest"],
        extractor=_cell(spec["extractor"]),
        layer=_cell(spec["layer"]),
        weights=spec["weights_digest"],
        search=_cell(", ".join(f"{key} {value}" for key, value in said.items())),
        versions=_cell(", ".join(f"{name} {version}" for name, version in json.loads(metadata["versions"]).items())),
        columns="\n".join(
            f"| `{_cell(field.name)}` | {_cell(str(field.type))} | {_COLUMNS.get(field.name, 'carried along')} |"
            for field in schema
        ),
    )
    return text + _last_line(text)


def may_be_written(directory: str) -> bool:
    """Whether an output has no card, or one that is as `card` made it."""
    found = files.read_if_there(paths.join(directory, README))
    if found is None:
        return True
    text = found.decode(errors="replace")
    body, newline, _ = text.removesuffix("\n").rpartition("\n")
    return text == body + newline + _last_line(body + newline)


def _last_line(text: str) -> str:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"<!-- Written by pipelines.caption, and again by its next run unless you change it. SHA-256 {digest} -->\n"


def _cell(text: str) -> str:
    """In a cell of a table, on one line."""
    return " ".join(text.split()).replace("|", "\\|")

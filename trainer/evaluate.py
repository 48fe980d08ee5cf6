"""Captions and what people said -> BLEU, METEOR, ROUGE-L, CIDEr (`python -m trainer.evaluate`)."""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import posixpath
import sys
from collections.abc import Sequence
from typing import Any

from tfrecords_schema import command_line, ending
from tfrecords_schema.command import Settings, setting
from tfrecords_schema.errors import InputError, RunError, told_in_one_line
from tfrecords_schema.text import on_screen, one_line

_METRICS_JSON, _SCORES, _EXAMPLES = "metrics.json", "scores.parquet", "examples.md"


ABOUT = {
    "prog": "python -m trainer.evaluate",
    "usage": "%(prog)s --captions PATH ... --references FILE.json ...\n"
    "                                 --output DIR [flags]",
    "description": "Score captions against captions that people wrote of the same images: BLEU-1 to BLEU-4, METEOR, "
    "ROUGE-L and CIDEr.",
    "examples": """
        python -m pipelines.caption --images demo/coco/val2017 \\
          --model demo/train/export --output demo/val-captions
        python -m trainer.evaluate --captions demo/val-captions \\
          --references demo/coco/annotations/captions_val2017.json \\
          --output demo/scores
    """,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig(Settings):
    """The whole of `python -m trainer.evaluate`."""

    captions: tuple[str, ...] = setting(
        "captions to score, one or several sets side by side: output directories of pipelines.caption, or .parquet, "
        "COCO results .json or .jsonl files with image_id and caption",
        metavar="PATH",
        reads="place",
    )
    references: tuple[str, ...] = setting(
        "captions that people wrote: COCO captions JSON or Karpathy's dataset_*.json", metavar="FILE.json", reads="file"
    )
    output: str = setting("directory to write the scores and examples to", metavar="DIR", writes="folder")
    split: str | None = setting("split of Karpathy's files to score against", None, unset="test", metavar="NAME")
    n: int = setting("number of the worst and of the best captions in examples.md", 10, least=1)
    overwrite: bool = setting("replace an earlier evaluation in --output", False)


def main(argv: Sequence[str] | None = None) -> None:
    """The command `caption-evaluate`: exits with 0, 1 for a run that failed, 2 for bad input, 130 for Ctrl-C."""
    try:
        with told_in_one_line():
            run(command_line.parse(EvaluateConfig, argv, **ABOUT))
    except KeyboardInterrupt:
        print("error: interrupted; nothing was written", file=sys.stderr)
        sys.exit(130)


def run(config: EvaluateConfig) -> dict[str, Any]:
    """Scores, prints and writes; returns the content of metrics.json.

    Raises:
      InputError: a flag or a file does not fit; nothing was written.
      RunError: the output could not be written.
    """
    captions, references, output = config.captions, config.references, config.output
    from tfrecords_schema.storage import files
    from trainer.scoring import scorecard
    from trainer.scoring.metrics import Scorer
    from trainer.scoring.predictions import read_predictions
    from trainer.scoring.references import match, read_references

    names = _names(captions)
    results = ["results.json"] if len(names) == 1 else [f"results-{k}.json" for k in range(1, len(names) + 1)]
    written = (_SCORES, _EXAMPLES, *results, _METRICS_JSON)
    stale = _begin(output, written, config.overwrite)
    known = read_references(references, config.split)
    try:
        given = [read_predictions(path) for path in captions]
    except OSError as error:
        raise InputError(f"--captions: expected captions that can be read, found: {one_line(error)}") from None
    matched = [match(found, known, path) for found, path in zip(given, captions, strict=True)]
    try:
        files.make_directory(output)
    except OSError as error:
        raise _unwritable(output, error) from None
    needed = {key: known[key].captions for found in matched for key in found.predictions}
    with Scorer(needed) as scorer:
        scores = [scorer({k: p.caption for k, p in found.predictions.items()}) for found in matched]
    cards = [
        scorecard.Card(name, path, result, found, len(known), score)
        for name, path, result, found, score in zip(names, captions, results, matched, scores, strict=True)
    ]
    summary = scorecard.summary(cards, {"files": list(references), "split": config.split}, known, written)
    contents = {
        _SCORES: scorecard.scores_parquet(cards, known),
        _EXAMPLES: scorecard.examples(cards, known, config.n).encode("utf-8"),
        **{card.results: scorecard.results_json(card, known) for card in cards},
        _METRICS_JSON: scorecard.as_json(summary),
    }
    try:
        files.replace(output, contents)
    except OSError as error:
        raise RunError(f"{output}: the output could not be written: {one_line(error)}") from None
    with contextlib.suppress(OSError):  # what is left is named in no metrics.json
        files.delete(*(posixpath.join(output, name) for name in stale))
    examples = scorecard.side_by_side(cards, known)
    for line in (*scorecard.table(cards, summary), f"output      {output}", "", *examples):
        print(on_screen(line))
    return summary


def _names(paths: Sequence[str]) -> list[str]:
    """What each is called in tables: its last part, or all of it where others end alike."""
    last = [posixpath.basename(path.rstrip("/")) for path in paths]
    if len(set(paths)) < len(paths):
        raise InputError(f"--captions: expected each once, found {max(paths, key=list(paths).count)} twice")
    return [path if last.count(name) > 1 or not name else name for path, name in zip(paths, last, strict=True)]


def _begin(output: str, written: Sequence[str], overwrite: bool) -> list[str]:
    """Checks whether `written` may be written; returns the other files of the evaluation that is replaced."""
    from tfrecords_schema.storage import files, finding
    from trainer.scoring import scorecard

    try:
        if files.exists(output) and not finding.directory_exists(output):
            raise InputError(f"--output: expected a directory, found the file {output}")
        there = [name for name in written if files.exists(posixpath.join(output, name))]
        earlier = scorecard.parse_files(files.read_text(posixpath.join(output, _METRICS_JSON)))
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise _unwritable(output, error) from None
    others = [name for name in there if name not in earlier]
    if others:
        raise InputError(
            f"--output: {output} holds {others[0]}, which no earlier evaluation wrote; give another --output"
        )
    if there and not overwrite:
        raise InputError(f"--output: {output} holds an earlier evaluation; give --overwrite, or another --output")
    ours = [name for name in earlier if fnmatch.fnmatch(name, "results*.json") and "/" not in name]
    return [name for name in ours if name not in written]


def _unwritable(output: str, error: Exception) -> InputError:
    return InputError(f"--output: expected a directory that can be written to, found {output}: {one_line(error)}")


program = ending.program(main)

if __name__ == "__main__":
    program()

"""Captions and what people said -> BLEU, METEOR, ROUGE-L, CIDEr (`python -m trainer.evaluate`)."""

from __future__ import annotations

import fnmatch
import posixpath
import sys
from collections.abc import Sequence
from typing import Any

from tfrecords_schema.errors import ArgumentParser, InputError, RunError, told_in_one_line
from tfrecords_schema.text import one_line

_METRICS_JSON, _SCORES, _EXAMPLES = "metrics.json", "scores.parquet", "examples.md"


def parser() -> ArgumentParser:
    """The command line."""
    p = ArgumentParser(
        prog="python -m trainer.evaluate", description="Score captions against what people wrote of the same images."
    )
    p.add_argument(
        "--captions",
        required=True,
        nargs="+",
        metavar="PATH",
        help="what to score, side by side: output directories of pipelines.caption, or .parquet, COCO results .json or "
        ".jsonl files with image_id and caption",
    )
    p.add_argument(
        "--references", required=True, nargs="+", metavar="FILE.json", help="captions of COCO, or Karpathy's dataset_*"
    )
    p.add_argument("--split", help="of Karpathy's files (default test)")
    p.add_argument("--output", required=True, metavar="DIR", help="for metrics.json, scores.parquet and examples.md")
    p.add_argument(
        "--n", type=int, default=10, help="of the worst and of the best captions shown (default %(default)s)"
    )
    p.add_argument("--overwrite", action="store_true", help="replace an earlier evaluation in --output")
    return p


def main(argv: Sequence[str] | None = None) -> None:
    """The command `caption-evaluate`: exits with 0, 1 for a run that failed, 2 for bad input, 130 for Ctrl-C."""
    args = parser().parse_args(argv)
    try:
        with told_in_one_line():
            run(**vars(args))
    except KeyboardInterrupt:
        print("error: interrupted; nothing was written", file=sys.stderr)
        sys.exit(130)


def run(
    *,
    captions: Sequence[str],
    references: Sequence[str],
    output: str,
    split: str | None = None,
    n: int = 10,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Scores, prints and writes; returns the content of metrics.json. Arguments are the command's flags.

    Raises:
      InputError: a flag or a file does not fit; nothing was written.
      RunError: the output could not be written.
    """
    if n < 1:
        raise InputError(f"--n: expected a whole number of at least 1, found {n}")
    from trainer.scoring import scorecard
    from trainer.scoring.metrics import Scorer
    from trainer.scoring.predictions import read_predictions
    from trainer.scoring.references import match, read_references
    from trainer.storage import files

    names = _names(captions)
    results = ["results.json"] if len(names) == 1 else [f"results-{k}.json" for k in range(1, len(names) + 1)]
    written = (_SCORES, _EXAMPLES, *results, _METRICS_JSON)
    stale = _begin(output, written, overwrite)
    known = read_references(references, split)
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
    summary = scorecard.summary(cards, {"files": list(references), "split": split}, known, written)
    contents = {
        _SCORES: scorecard.scores_parquet(cards, known),
        _EXAMPLES: scorecard.examples(cards, known, n).encode("utf-8"),
        **{card.results: scorecard.results_json(card, known) for card in cards},
        _METRICS_JSON: scorecard.as_json(summary),
    }
    try:
        files.replace(output, contents)
    except OSError as error:
        raise RunError(f"{output}: the output could not be written: {one_line(error)}") from None
    files.delete(*(posixpath.join(output, name) for name in stale))
    for line in (*scorecard.table(cards, summary), f"output      {output}"):
        print(line)
    return summary


def _names(paths: Sequence[str]) -> list[str]:
    """What each is called in tables: its last part, or all of it where others end alike."""
    last = [posixpath.basename(path.rstrip("/")) for path in paths]
    if len(set(paths)) < len(paths):
        raise InputError(f"--captions: expected each once, found {max(paths, key=list(paths).count)} twice")
    return [path if last.count(name) > 1 or not name else name for path, name in zip(paths, last, strict=True)]


def _begin(output: str, written: Sequence[str], overwrite: bool) -> list[str]:
    """Checks whether `written` may be written; returns the other files of the evaluation that is replaced."""
    from trainer.scoring import scorecard
    from trainer.storage import files

    if not output:
        raise InputError("--output: expected a directory, found an empty name")
    try:
        if files.exists(output) and not files.is_directory(output):
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


if __name__ == "__main__":
    main()

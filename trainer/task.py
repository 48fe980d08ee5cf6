"""Feature directory -> trained and exported decoder (`python -m trainer.task`)."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from tfrecords_schema.errors import ArgumentParser, RunError, told_in_one_line
from trainer import config


def parser() -> ArgumentParser:
    """The command line; most flags are the fields of the configs."""
    p = ArgumentParser(
        prog="python -m trainer.task",
        description="Train the Show-and-Tell caption decoder on all visible devices, and export it.",
    )
    p.add_argument("--data", required=True, metavar="DIR", help="feature directory that pipelines.features wrote")
    p.add_argument("--job_dir", required=True, metavar="DIR", help="for checkpoints, logs and export/")
    p.add_argument("--overwrite", action="store_true", help="delete an earlier run in --job_dir instead of going on")
    config.add_flags(p, config.DecoderConfig)
    config.add_flags(p, config.TrainConfig)
    return p


def main(argv: Sequence[str] | None = None) -> None:
    """The command `caption-train`: exits with 0, 1 for a run that failed, 2 for bad input, 130 for Ctrl-C."""
    args = parser().parse_args(argv)
    try:
        with told_in_one_line():
            run(**vars(args))
    except KeyboardInterrupt:
        print("error: interrupted; the same command goes on from the last finished epoch", file=sys.stderr)
        sys.exit(130)


def run(
    *, data: str, job_dir: str, overwrite: bool = False, callbacks: Sequence = (), **flags: Any
) -> dict[str, float]:
    """Trains and exports; returns the metrics of the best epoch. `flags` are the configs' fields, `callbacks` Keras'.

    Raises:
      InputError: a flag, the data or the job directory does not fit; nothing was trained.
    """
    train_config = config.from_flags(config.TrainConfig, flags)
    from tfrecords_schema.quiet import import_tensorflow

    tf = import_tensorflow()
    from trainer import dataset, export, train

    directory = dataset.open_directory(data)
    decoder_config = train.decoder_config(directory, flags)
    export_dir = os.path.join(job_dir, "export")
    if overwrite:
        train.delete_earlier_run(job_dir)
        export.delete_earlier_export(export_dir)
    try:
        metrics = train.train(directory, job_dir, decoder_config, train_config, callbacks)
    except tf.errors.OpError as error:
        damaged = dataset.find_damaged(directory)
        where = f"{damaged}: damaged; make the features again" if damaged else str(error.message).splitlines()[0]
        raise RunError(f"{where} (checkpoints are kept, the same command goes on)") from error
    if not metrics:
        raise RunError(
            f"{job_dir}: no epoch ended with a finite loss, nothing was exported; try a smaller --learning_rate"
        )
    info = export.export(export.load_decoder(job_dir, decoder_config), directory, metrics, export_dir)
    shown = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    print(f"best epoch  {shown}")
    print(f"export      {export_dir} (digest {info.digest[:12]}…)")
    # Weights that were a file are the user's own, and somewhere that only they know.
    weights = "" if info.features.weights in ("imagenet", "random") else f" --weights {info.features.weights}"
    print(f"next        python -m pipelines.caption --images 'GLOB' --model {export_dir}{weights} --output DIR")
    return metrics


if __name__ == "__main__":
    main()

"""Feature directory -> trained and exported decoder (`python -m trainer.task`)."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tfrecords_schema import command, command_line, ending
from tfrecords_schema.command import Settings, group, setting
from tfrecords_schema.errors import InputError, RunError, told_in_one_line
from tfrecords_schema.text import beside, on_screen
from trainer.config import DecoderSettings, TrainConfig
from trainer.training.interruptions import Interruptions, Preempted

if TYPE_CHECKING:
    from tfrecords_schema.manifests.features_info import FeaturesInfo

PREEMPTED_STATUS = 75  # EX_TEMPFAIL of sysexits.h: try again

# What did best on real photographs; benchmarks/README.md has the table of what was tried.
PRESETS: dict[str, dict[str, Any]] = {
    "flickr8k": {
        "epochs": 16,
        "patience": 5,
        "image_dropout": 0.3,
        "label_smoothing": 0.1,
        "self_critical": 8,
        "self_critical_rate": 2e-4,
    },
    # Over features of Inception-v3 made with --feature_grid --store_images.
    "best": {
        "attention": "luong",
        "epochs": 10,
        "patience": 10,
        "image_dropout": 0.3,
        "label_smoothing": 0.1,
        "fine_tune": "mixed8",
        "fine_tune_epochs": 3,
        "fine_tune_rate": 3e-4,
        "fine_tune_decoder_rate": 3e-4,
        "self_critical": 6,
        "self_critical_rate": 2e-4,
    },
}


ABOUT = {
    "prog": "python -m trainer.task",
    "usage": "%(prog)s --data DIR --job_dir DIR [flags]",
    "description": "Train a caption decoder on all devices that TensorFlow sees, and export its best epoch. "
    "Run the same command again to continue a run that was stopped.",
    "examples": """
        python -m trainer.task --data demo/features --job_dir demo/train-2 --epochs 2
        python -m trainer.task --data demo/features --job_dir demo/train-gru \\
          --epochs 2 --cell gru --units 256 --monitor val_loss
    """,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskConfig(Settings):
    """The whole of `python -m trainer.task`."""

    data: str = setting("feature directory of pipelines.features to train on", metavar="DIR", reads="folder")
    job_dir: str = setting("directory to write checkpoints, logs and export/ to", metavar="DIR", writes="folder")
    preset: str | None = setting(
        "set of defaults; flickr8k: for some thousand photographs, with self-critical epochs at the end; best: with "
        "attention, fine-tuning and self-critical epochs, for features of inception_v3 made with --feature_grid "
        "--store_images; flags that you give override it",
        None,
        heading="run",
        choices=tuple(sorted(PRESETS)),
    )
    overwrite: bool = setting("delete an earlier run in --job_dir instead of going on with it", False)
    decoder: DecoderSettings = group(DecoderSettings, "decoder")
    training: TrainConfig = group(TrainConfig, "training")


def with_preset(given: Mapping[str, Any]) -> TaskConfig:
    """The config of the flags given, over the defaults of their `--preset`. Raises InputError."""
    return command.make(TaskConfig, {**PRESETS.get(given.get("preset", ""), {}), **given})


def parse(argv: Sequence[str] | None = None) -> TaskConfig:
    """The config of a command line. Raises InputError; where the command line does not fit, exits with status 2."""
    return with_preset(vars(command_line.parser(TaskConfig, **ABOUT).parse_args(argv)))


def main(argv: Sequence[str] | None = None) -> None:
    """The command `caption-train`.

    Exits with 0, 1 for a run that failed, 2 for bad input, 75 for SIGTERM and 130 for Ctrl-C; after all but 2 the same
    command goes on.
    """
    try:
        with told_in_one_line():
            run(parse(argv))
    except Preempted:
        print("error: SIGTERM; run the same command to continue", file=sys.stderr)
        sys.exit(PREEMPTED_STATUS)
    except KeyboardInterrupt:
        print("error: interrupted; run the same command to continue", file=sys.stderr)
        sys.exit(130)


def _require_preset(config: TaskConfig, info: FeaturesInfo) -> None:
    """Raises InputError where the data lacks what a preset's settings need: without naming flags that nobody gave."""
    needed = {
        "--feature_grid": config.decoder.attention != "none" and len(info.features.shape) != 2,
        "--store_images": bool(config.training.fine_tune) and info.images is None,
    }
    if config.preset and (missing := " ".join(flag for flag, lacks in needed.items() if lacks)):
        raise InputError(
            f"--preset {config.preset}: expected features made with pipelines.features {missing}, found features "
            f"made without in {config.data}; make them again with it"
        )


def run(config: TaskConfig) -> dict[str, Any]:
    """Trains and exports; returns the figures of the best epoch.

    Raises:
      InputError: a flag, the data or the job directory does not fit; nothing was trained.
      RunError: training cannot go on.
      Preempted, KeyboardInterrupt: a signal came; a checkpoint is written.
    """
    from tfrecords_schema.storage.filesystems import require_filesystems

    job_dir, training = config.job_dir, config.training
    require_filesystems(data=config.data, job_dir=job_dir)
    with Interruptions().watched() as interruptions:
        from tfrecords_schema.quiet import import_tensorflow

        tf = import_tensorflow()
        from tfrecords_schema.manifests.model_info import ModelInfo
        from tfrecords_schema.storage import files
        from trainer.data import dataset
        from trainer.exporting import saved_model
        from trainer.training import job, loop
        from trainer.training.checkpoints import load_best
        from trainer.training.fine_tuning import save_network
        from trainer.training.run import decoder_config, make_cnn, train

        directory = dataset.open_directory(config.data, interruptions.check)
        _require_preset(config, directory.info)
        shape = decoder_config(directory, config.decoder)
        export_dir = os.path.join(job_dir, job.EXPORT)
        with contextlib.ExitStack() as held:
            place = held.enter_context(job.opened(job_dir))
            saved_model.require_ours("--job_dir", export_dir)
            try:
                with place.told():
                    best = train(directory, place, shape, training, interruptions, config.overwrite)
                    best_dir = os.path.join(place.directory, job.BEST)
                    cnn = make_cnn(directory, training) if best else None
                    decoder = load_best(best_dir, shape, cnn) if best else None
                    images = dataset.place_of_images(directory)
            except tf.errors.ResourceExhaustedError as error:
                raise RunError(
                    f"expected a decoder and batches that fit into memory, found: {files.reason(error)[:200]}; give a "
                    "smaller --batch_size, --fine_tune_batch_size, --units or --embedding_dim in another --job_dir, or "
                    "a machine with more"
                ) from error
            except tf.errors.OpError as error:
                damaged = dataset.find_damaged(directory)
                reason = files.reason(error)
                raise RunError(damaged or f"{reason} (run the same command to continue)") from error
            except OSError as error:
                raise RunError(f"--job_dir: {job_dir}: {error} (run the same command to continue)") from error
            place.finish()
            if decoder is None:
                raise RunError(f"{job_dir}: no epoch had a finite {training.monitor}, nothing was exported")
            spec, extractor, weights_in = directory.info.features, directory.info.extractor, directory.path
            if cnn and cnn.is_changed():
                weights_in = held.enter_context(tempfile.TemporaryDirectory(prefix="captioning-"))
                spec, extractor = save_network(cnn, spec, training, weights_in)
            info = ModelInfo(
                decoder=dataclasses.asdict(shape),
                features=spec,
                max_caption_length=directory.info.max_caption_length,
                vocabulary_digest=directory.vocabulary.digest,
                digest="",
                metrics=best,
                search={"beam_width": training.beam_width, "length_penalty": training.length_penalty},
                extractor=extractor,
            )
            info = saved_model.write(decoder, directory.vocabulary, info, export_dir, weights_in)
    print(f"best        {loop.line(best)}")
    print(f"export      {export_dir} (digest {info.digest[:12]}…)")
    weights = info.features.weights
    own = () if info.extractor or weights in ("imagenet", "random") else ("--weights", weights)
    flags = ("--images", images, "--model", export_dir, *own, "--output", beside(job_dir, "captions"))
    print(on_screen(f"next        {shlex.join(('python', '-m', 'pipelines.caption', *flags))}"))
    return best


program = ending.program(main)

if __name__ == "__main__":
    program()

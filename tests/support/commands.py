"""The commands, called as functions: keyword arguments are their flags. Each is imported when it is called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfrecords_schema import command


def features(beam_args: Sequence[str] = (), **flags: Any) -> dict[str, Any]:
    """`pipelines.features`; the content of its report.json."""
    from pipelines import features

    return features.run(command.make(features.FeaturesConfig, flags), beam_args)


def caption(beam_args: Sequence[str] = (), **flags: Any) -> dict[str, Any]:
    """`pipelines.caption`; the content of its report.json, or what a dry run found."""
    from pipelines import caption

    return caption.run(command.make(caption.CaptionConfig, flags), beam_args)


def gallery(**flags: Any) -> None:
    """`pipelines.gallery`."""
    from pipelines import gallery

    gallery.run(command.make(gallery.GalleryConfig, flags))


def download_coco(**flags: Any) -> None:
    """`pipelines.download_coco`."""
    from pipelines import download_coco

    download_coco.run(command.make(download_coco.DownloadCocoConfig, flags))


def task(**flags: Any) -> dict[str, Any]:
    """`trainer.task`; the figures of the best epoch."""
    from trainer import task

    return task.run(task.with_preset(flags))


def evaluate(**flags: Any) -> dict[str, Any]:
    """`trainer.evaluate`; the content of its metrics.json."""
    from trainer import evaluate

    return evaluate.run(command.make(evaluate.EvaluateConfig, flags))


def export(**flags: Any) -> Any:
    """`trainer.export`; the ensemble's ModelInfo."""
    from trainer import export

    return export.run(command.make(export.ExportConfig, flags))


def import_im2txt(**flags: Any) -> Any:
    """`trainer.import_im2txt`; the export's ModelInfo."""
    from trainer import import_im2txt

    return import_im2txt.run(command.make(import_im2txt.ImportIm2TxtConfig, flags))


def submit(trainer_flags: Sequence[str] = (), **flags: Any) -> int:
    """`trainer.submit`; its exit status."""
    from trainer import submit

    return submit.run(command.make(submit.SubmitConfig, flags), trainer_flags)

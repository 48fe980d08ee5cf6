"""The commands, called as functions: keyword arguments are their flags. Each is imported when it is called."""

from __future__ import annotations

from typing import Any


def features(**flags: Any) -> dict[str, Any]:
    """`pipelines.features`; the content of its report.json."""
    from pipelines import features

    return features.run(**flags)


def caption(**flags: Any) -> dict[str, Any]:
    """`pipelines.caption`; the content of its report.json, or what a dry run found."""
    from pipelines import caption

    return caption.run(**flags)


def gallery(**flags: Any) -> None:
    """`pipelines.gallery`."""
    from pipelines import gallery

    return gallery.run(**flags)


def task(**flags: Any) -> dict[str, Any]:
    """`trainer.task`; the figures of the best epoch. Flags that are not given have their defaults."""
    from trainer import task

    defaults = vars(task.parser().parse_args(["--data", "", "--job_dir", ""]))
    return task.run(**{**defaults, **flags})


def evaluate(**flags: Any) -> dict[str, Any]:
    """`trainer.evaluate`; the content of its metrics.json."""
    from trainer import evaluate

    return evaluate.run(**flags)


def export(**flags: Any) -> Any:
    """`trainer.export`; the ensemble's ModelInfo."""
    from trainer import export

    return export.run(**flags)


def submit(**flags: Any) -> Any:
    """`trainer.submit`."""
    from trainer import submit

    return submit.run(**flags)

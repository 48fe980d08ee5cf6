"""All commands that have flags."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

from tfrecords_schema.command import Flag, Settings, flags

COMMANDS = [
    "pipelines.features",
    "pipelines.caption",
    "pipelines.gallery",
    "pipelines.download_coco",
    "pipelines.serve",
    "trainer.task",
    "trainer.evaluate",
    "trainer.export",
    "trainer.import_im2txt",
    "trainer.submit",
    "tfrecords_schema.show",
    "scripts.demo",
    "scripts.docs_check",
]


class Command(NamedTuple):
    """A command.

    Attributes:
      main: its function.
      about: what its help page says beside its flags.
      needed: the shortest command line that its parser takes.
    """

    module: Any
    main: Callable[..., Any]
    about: dict[str, str]
    config: type[Settings]
    flags: list[Flag]
    needed: list[str]


def command_of(name: str) -> Command:
    """The command `python -m name`."""
    module = importlib.import_module(name)
    config = getattr(module, f"{name.rpartition('.')[2].title().replace('_', '')}Config")
    found = list(flags(config))
    required = [[f"--{flag.name}", "x"][flag.about.positional :] for flag in found if flag.is_required]
    needed = [part for parts in required for part in parts]
    return Command(module, module.main, module.ABOUT, config, found, needed)

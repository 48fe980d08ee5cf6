"""Other models made of exports.

Several models as one: `python -m trainer.export --ensemble A B C --output DIR`. A model in ONNX, for programs without
TensorFlow: `python -m trainer.export --onnx EXPORT --output DIR`.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tfrecords_schema import command_line, ending
from tfrecords_schema.command import Settings, setting
from tfrecords_schema.errors import InputError, told_in_one_line
from tfrecords_schema.manifests.features_info import RESIZE
from tfrecords_schema.manifests.model_info import open_export
from tfrecords_schema.quiet import import_tensorflow
from tfrecords_schema.storage import files, paths
from trainer.exporting import saved_model

if TYPE_CHECKING:
    from tfrecords_schema.manifests.model_info import ModelInfo


ABOUT = {
    "prog": "python -m trainer.export",
    "usage": "%(prog)s (--ensemble DIR ... | --onnx DIR) --output DIR",
    "description": "Make another model of exports: an ensemble of several that were trained on the same data, in which "
    "the probability of each word is the mean of theirs; or one export in ONNX, for programs without TensorFlow.",
    "examples": """
        python -m trainer.task --data demo/features --job_dir demo/train-seed1 \\
          --seed 1 --epochs 2
        python -m trainer.export --output demo/ensemble \\
          --ensemble demo/train/export demo/train-seed1/export
        python -m trainer.export --onnx demo/train/export --output demo/onnx
    """,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportConfig(Settings):
    """The whole of `python -m trainer.export`."""

    ensemble: tuple[str, ...] = setting(
        "export directories of trainer.task to join, two or more", (), metavar="DIR", reads="folder"
    )
    onnx: str | None = setting("export directory of trainer.task to write in ONNX", None, metavar="DIR", reads="folder")
    output: str = setting("directory to write", metavar="DIR", writes="folder")
    overwrite: bool = setting("replace an export in --output; with --ensemble", False)

    def __post_init__(self):
        super().__post_init__()
        if bool(self.ensemble) == bool(self.onnx):
            found = "both" if self.onnx else "none"
            raise InputError(f"--ensemble or --onnx: expected one of them, found {found}; see --help")
        if self.onnx and self.overwrite:
            raise InputError("--overwrite: expected --ensemble beside it, found --onnx, which replaces nothing")


def main(argv: Sequence[str] | None = None) -> None:
    """Exits with 0, or 2 for bad input."""
    with told_in_one_line():
        run(command_line.parse(ExportConfig, argv, **ABOUT))


def run(config: ExportConfig) -> ModelInfo:
    """Writes what is asked for; returns what the model says of itself. Raises InputError."""
    if config.onnx:
        return _write_onnx(config.onnx, config.output)
    return _write_ensemble(config)


def _write_onnx(directory: str, output: str) -> ModelInfo:
    """Writes a model in ONNX, its info file last."""
    info, vocabulary = open_export(directory, files.read_text, "--onnx")
    if "ensemble" in info.decoder:
        raise InputError(f"--onnx: expected an export of trainer.task, found an ensemble in {directory}")
    if info.features.resize != RESIZE:
        raise InputError(f"--onnx: expected an export of trainer.task, found a model of im2txt in {directory}")
    try:
        names = saved_model.names_in(output)
    except OSError as error:
        raise saved_model.unwritable(output, error) from None
    if names:
        raise InputError(f"--output: expected nothing in {output}, found {min(names)}; give another directory")
    if missing := [name for name in ("onnx", "tf2onnx") if not importlib.util.find_spec(name)]:
        told = " and ".join(missing)
        raise InputError(f"--onnx: expected the package {told}, found none; pip install 'batch-image-captioning[onnx]'")
    import_tensorflow()
    from trainer.exporting import onnx_files
    from trainer.model.exported import load_export

    contents = onnx_files.converted(load_export(directory, info), vocabulary, info, directory)
    try:
        files.make_directory(output)
        files.replace(output, contents)
    except OSError as error:
        raise saved_model.unwritable(output, error) from None
    print(f"onnx        {output} ({', '.join(contents)})")
    return info


def _write_ensemble(config: ExportConfig) -> ModelInfo:
    """Writes the export of an ensemble. Raises InputError where models do not fit each other."""
    ensemble, output = config.ensemble, config.output
    if len(ensemble) < 2:
        raise InputError(f"--ensemble: expected two exports or more, found {len(ensemble)}")
    places = [_place(directory) for directory in (*ensemble, output)]
    if len(set(places)) < len(places):
        raise InputError(f"--ensemble: expected different directories, and another one as --output, found {places}")
    opened = [open_export(directory, files.read_text, "--ensemble") for directory in ensemble]
    first, vocabulary = opened[0]
    for directory, (info, _) in zip(ensemble, opened, strict=True):
        if "ensemble" in info.decoder:
            raise InputError(f"--ensemble: expected exports of trainer.task, found an ensemble in {directory}")
        try:
            info.features.require_same(first.features, directory, ensemble[0])
        except InputError as error:
            raise InputError(f"--ensemble: features: {error}; members must be trained on the same features") from None
        if info.vocabulary_digest != first.vocabulary_digest:
            raise InputError(f"--ensemble: {directory} and {ensemble[0]} have different words; train on the same data")
    saved_model.require_free(output, config.overwrite)
    from trainer.model.exported import load_export
    from trainer.search.caption_module import Ensemble

    decoders = [load_export(directory, info) for directory, (info, _) in zip(ensemble, opened, strict=True)]
    having = [
        (directory, info.extractor) for directory, (info, _) in zip(ensemble, opened, strict=True) if info.extractor
    ]
    weights_in, extractor = having[0] if having else ("", "")
    members = {"ensemble": [info.decoder for info, _ in opened], "attention": "none"}
    info = dataclasses.replace(first, decoder=members, metrics={}, extractor=extractor)
    info = saved_model.write_output(Ensemble(decoders), vocabulary, info, output, weights_in)
    print(f"export      {output} ({len(decoders)} models, digest {info.digest[:12]}…)")
    return info


def _place(directory: str) -> str:
    """One spelling for each directory."""
    return directory.rstrip("/") if paths.is_remote(directory) else os.path.realpath(directory)


program = ending.program(main)

if __name__ == "__main__":
    program()

"""`--weights EXPORT`: the weights of the network inside an export of the trainer, as it was fine-tuned there."""

from __future__ import annotations

import os

from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests.model_info import MODEL_INFO, open_export
from tfrecords_schema.storage import carried, files, paths


def is_export(directory: str) -> bool:
    """Whether `--weights` names an export, and not a file or a name. Raises InputError for another directory."""
    found = files.exists(paths.join(directory, MODEL_INFO))
    if not found and os.path.isdir(directory):
        raise InputError(
            "--weights: expected an export, as trainer.task writes to JOB/export, or a file, found a directory "
            f"without {MODEL_INFO}: {directory}"
        )
    return found


def weights_of(directory: str, extractor: str) -> tuple[str, str]:
    """(place, digest) of the weights that an export carries for the network of this name, compared with their digest.

    Raises:
      InputError: it carries none, another network's, or others than it says.
    """
    info, _ = open_export(directory, files.read_text, "--weights")
    if not info.extractor or info.features.extractor != extractor:
        found = f"those of {info.features.extractor}" if info.extractor else "none"
        raise InputError(f"--weights: expected an export with weights of --extractor {extractor}, found {found}")
    place, digest = paths.join(directory, info.extractor), info.features.weights_digest
    ways = "export it again, or give a file"
    carried.require(carried.local_copy(place, digest, "--weights", ways), digest, place, "--weights", ways)
    return place, digest

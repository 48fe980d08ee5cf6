"""The decoder inside an export directory."""

from __future__ import annotations

import tensorflow as tf

from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests.features_info import CARRIED
from tfrecords_schema.manifests.model_info import ModelInfo, read_weights
from tfrecords_schema.storage import copies, files
from trainer.config import DecoderConfig
from trainer.model.decoder import Decoder


def load_export(directory: str, info: ModelInfo) -> Decoder:
    """The decoder inside an export directory, built anew from its configuration. Raises InputError."""
    with copies.temporary(directory, but=CARRIED) as local:
        weights = read_weights(local, info, directory)  # first: they tell that the configuration is theirs
    try:
        decoder = Decoder(DecoderConfig(**info.decoder))
    except TypeError as error:
        raise InputError(f"{directory}: made by another version of this program: {error}; export it again") from None
    try:
        decoder.build()
        decoder.set_weights(weights)
    except (tf.errors.OpError, ValueError) as error:
        told = files.reason(error)
        raise InputError(f"{directory}: expected the weights of its configuration, found: {told}") from None
    return decoder

"""What validation makes of the captions of images."""

import os

import numpy as np
import tensorflow as tf

from tfrecords_schema.vocabulary import END
from trainer.config import DecoderSettings, TrainConfig
from trainer.data import dataset
from trainer.data.batches import Batches
from trainer.model.decoder import Decoder
from trainer.training.run import decoder_config
from trainer.training.validation import Validation


def test_images_whose_ids_are_shown_alike_are_scored_one_by_one(make_features, coco_dir, tmp_path, monkeypatch):
    """Names that are no UTF-8, and differ in just the letter that is none."""
    monkeypatch.setenv("PATH", "/nowhere")  # without Java's programs
    images = sorted((coco_dir / "val2017").iterdir())
    for split, names in (("train", [b"a"]), ("val", [b"\xe8", b"\xe9"])):
        (tmp_path / split).mkdir()
        for name, image in zip(map(os.fsdecode, names), images, strict=False):
            (tmp_path / split / f"{name}.jpg").write_bytes(image.read_bytes())
            (tmp_path / split / f"{name}.txt").write_text("A ball.")
    given = {f"{split}_captions": [str(tmp_path / split)] for split in ("train", "val")}
    directory = dataset.open_directory(str(make_features(coco_dir=None, **given)[0]))
    decoder = Decoder(decoder_config(directory, DecoderSettings(units=8, embedding_dim=8)))
    decoder.build()
    batches = Batches(directory, "val", 2, 1e9, seed=0)
    scores, captioned = Validation(batches, TrainConfig(), decoder, tf.distribute.get_strategy()).scores(lambda: None)
    assert len({image.id for image in captioned}) == 1 and len(scores.per_image["cider"]) == len(captioned) == 2


def test_captions_have_a_word_as_those_of_the_export_do(make_features, monkeypatch):
    """A young model's likeliest caption is often the empty one, which no table ever holds."""
    monkeypatch.setenv("PATH", "/nowhere")
    directory = dataset.open_directory(str(make_features()[0]))
    decoder = Decoder(decoder_config(directory, DecoderSettings(units=8, embedding_dim=8)))
    decoder.build()
    decoder.logits.bias.assign(10.0 * np.eye(len(directory.vocabulary))[END])
    batches = Batches(directory, "val", 2, 1e9, seed=0)
    _, captioned = Validation(batches, TrainConfig(), decoder, tf.distribute.get_strategy()).scores(lambda: None)
    assert len(captioned) == 8 and all(len(image.caption.split()) == 1 for image in captioned)

"""Training that goes on: more epochs of a run that has ended, and a run that begins with the weights of another."""

import dataclasses
import shutil

import numpy as np
import pytest

from pipelines.captions.exports import open_model
from tests.support.outputs import history, outcome
from tests.support.small import train_without_java, write_features
from tfrecords_schema.errors import InputError
from trainer.config import DecoderSettings
from trainer.data import dataset
from trainer.exporting import saved_model
from trainer.model.decoder import Decoder
from trainer.model.earlier import Earlier
from trainer.model.exported import load_export
from trainer.training.run import decoder_config

FLAGS = {"schedule": "constant", "embedding_dropout": 0.3, "monitor": "bleu_4"}
SELF_CRITICAL = {"self_critical": 2, "self_critical_rate": 1e-3, "self_critical_xe": 0.2}
SIZES = {"units": 16, "embedding_dim": 16}


@pytest.fixture(scope="module")
def two_epochs(data, tmp_path_factory):
    """A job directory, to be copied."""
    job = tmp_path_factory.mktemp("two") / "job"
    train_without_java(data, job, epochs=2, **FLAGS)
    return job


@pytest.mark.slow
def test_more_epochs_of_a_run_that_has_ended_equal_all_of_them_at_once(data, two_epochs, tmp_path, capsys):
    shutil.copytree(two_epochs, tmp_path / "more")
    train_without_java(data, tmp_path / "more", epochs=4, **FLAGS)
    assert "going on with epoch 3" in capsys.readouterr().out
    train_without_java(data, tmp_path / "once", epochs=4, **FLAGS)
    found = outcome(tmp_path / "more")
    assert found == outcome(tmp_path / "once") and len(found[0]) == 4
    with pytest.raises(InputError, match=r"epochs was 4, now 2"):
        train_without_java(data, tmp_path / "more", epochs=2, **FLAGS)


@pytest.mark.slow
def test_self_critical_epochs_added_later_equal_a_run_that_had_them(data, two_epochs, tmp_path):
    shutil.copytree(two_epochs, tmp_path / "more")
    for epochs in (1, 2):  # added, then one more: the rate is that of the new number, so only the first is the same
        train_without_java(data, tmp_path / "more", epochs=2, **FLAGS, **{**SELF_CRITICAL, "self_critical": epochs})
    train_without_java(data, tmp_path / "once", epochs=2, **FLAGS, **SELF_CRITICAL)
    more, once = (history(tmp_path / name) for name in ("more", "once"))
    assert (
        [row["phase"] for row in more]
        == [row["phase"] for row in once]
        == ["cross_entropy"] * 2 + ["self_critical"] * 2
    )
    assert more[2]["reward"] and float(more[3]["loss"]) > 0
    assert float(more[3]["learning_rate"]) == pytest.approx(float(once[3]["learning_rate"]))


@pytest.mark.slow
def test_a_run_that_ended_for_want_of_a_better_epoch_goes_on_with_more_patience(data, tmp_path, capsys):
    flags = {**FLAGS, "learning_rate": 1e-9, "embedding_dropout": 0.0, "epochs": 5}
    for patience, epochs in ((1, 2), (1, 2), (2, 3)):
        train_without_java(data, tmp_path / "job", **flags, patience=patience)
        assert len(history(tmp_path / "job")) == epochs
        assert f"no better bleu_4 in {patience} validations (--patience)" in capsys.readouterr().out


@pytest.fixture(scope="module")
def other_words(tiny_network, coco_dir, tmp_path_factory):
    """Features of the same network, with a vocabulary of fewer words and one that is new."""
    output = tmp_path_factory.mktemp("other") / "features"
    write_features(output, tiny_network, coco_dir, vocab_size=12)
    return output


def read(trained, features, **settings) -> tuple[Earlier, Decoder]:
    directory = dataset.open_directory(str(features))
    config = decoder_config(directory, DecoderSettings(**{**SIZES, **settings}))
    decoder = Decoder(config)
    decoder.build()
    export_dir = str(trained / "job/export")
    return Earlier(export_dir, directory.info.features, directory.vocabulary, config, directory.path), decoder


def of_words(decoder) -> list[np.ndarray]:
    """All that belongs to words, a row for each."""
    logits = decoder.logits
    return [decoder.word_embedding.embeddings.numpy(), logits.kernel.numpy().T, logits.bias.numpy()[:, None]]


def test_a_words_numbers_go_with_it_and_what_is_new_is_the_mean(trained, other_words, tmp_path):
    """To a smaller vocabulary, and from there to the larger one again."""
    info, vocabulary = open_model(str(trained / "job/export"))
    large = load_export(str(trained / "job/export"), info)
    spoken = dataset.open_directory(str(other_words)).vocabulary
    earlier, small = read(trained, other_words)
    gone = len(vocabulary) - len(spoken)
    assert gone > 3 and f": {len(spoken)} words are known, 0 new, {gone} gone" in earlier.begin(small)
    places = [vocabulary.words.index(word) for word in spoken.words]
    for found, before in zip(of_words(small), of_words(large), strict=True):
        np.testing.assert_array_equal(found, before[places])
    for layer in ("scaling", "image_embedding"):
        for found, before in zip(getattr(small, layer).weights, getattr(large, layer).weights, strict=True):
            np.testing.assert_array_equal(found, before)

    changed = {"decoder": vars(small.config), "vocabulary_digest": spoken.digest, "extractor": ""}
    saved_model.write(small, spoken, dataclasses.replace(info, **changed), str(tmp_path / "job/export"))
    earlier, again = read(tmp_path, trained / "features")
    assert f": {len(spoken)} words are known, {gone} new, 0 gone" in earlier.begin(again)
    new = np.setdiff1d(range(len(vocabulary)), places)
    for found, before in zip(of_words(again), of_words(small), strict=True):
        np.testing.assert_array_equal(found[places], before)
        np.testing.assert_allclose(found[new], np.tile(before[1:].mean(0), (gone, 1)), atol=1e-6)


def test_features_may_be_stored_in_another_type(trained, other_words, tmp_path):
    """As of a model of im2txt, whose features are float32, over a directory of float16 as it is by default."""
    info, vocabulary = open_model(str(trained / "job/export"))
    decoder = load_export(str(trained / "job/export"), info)
    of_other_type = dataclasses.replace(info.features, dtype="float32")
    assert info.features.dtype == dataset.open_directory(str(other_words)).info.features.dtype == "float16"
    changed = dataclasses.replace(info, features=of_other_type, extractor="")
    saved_model.write(decoder, vocabulary, changed, str(tmp_path / "job/export"))
    earlier, begun = read(tmp_path, other_words)
    assert "begins with the weights of" in earlier.begin(begun)


def test_what_does_not_fit_is_told(trained, other_words, tmp_path, made_grid_features):
    with pytest.raises(InputError, match=r"--units: expected 16, as the model in --init_from .* has, found 8"):
        read(trained, other_words, units=8)
    with pytest.raises(InputError, match=r"--init_from: features: layer differs: .*; make --data with the network"):
        read(trained, made_grid_features)
    with pytest.raises(InputError, match=r"--init_from: expected an export directory"):
        read(tmp_path, other_words)
    with pytest.raises(InputError, match="--pretrained_embeddings: expected none beside --init_from"):
        train_without_java(other_words, tmp_path / "job", epochs=1, init_from="a", pretrained_embeddings="b")


def test_xla_is_not_asked_to_compile_attention(made_grid_features, tmp_path):
    with pytest.raises(InputError, match="--jit_compile: expected none with --attention bahdanau"):
        train_without_java(made_grid_features, tmp_path / "job", epochs=1, attention="bahdanau", jit_compile=True)


@pytest.mark.slow
def test_a_run_begins_with_the_weights_of_another(trained, tmp_path, capsys):
    """The real command: where nothing is learned, it is as good as the export; and it goes on without that."""
    start = shutil.copytree(trained / "job/export", tmp_path / "start")
    flags = {"init_from": str(start), "learning_rate": 1e-9, "schedule": "constant"}
    best = train_without_java(trained / "features", tmp_path / "job", epochs=1, **flags)
    assert f"begins with the weights of {start}" in capsys.readouterr().out
    assert best["val_loss"] == pytest.approx(open_model(str(start))[0].metrics["val_loss"], abs=1e-4)
    shutil.rmtree(start)
    train_without_java(trained / "features", tmp_path / "job", epochs=2, **flags)
    assert len(history(tmp_path / "job")) == 2

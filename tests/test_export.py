"""The exported model: the same as in memory, without Python of ours; and several as one."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from pipelines.captioner import Captioner, Search, open_model
from tests import decoders
from tfrecords_schema.dataset_info import FeatureSpec
from tfrecords_schema.errors import InputError
from tfrecords_schema.model_info import ModelInfo
from tfrecords_schema.vocabulary import START, UNK, Vocabulary
from trainer import export
from trainer.caption_module import CaptionModule

VOCABULARY = Vocabulary(
    ("<pad>", "<start>", "<end>", "<unk>", *(f"word{i}" for i in range(decoders.WORDS - 4))), (0,) * decoders.WORDS
)


def write(decoder, directory, vocabulary=VOCABULARY, **changes) -> str:
    shape = decoder.config.feature_shape
    features = {"extractor": "tiny", "layer": "means", "weights": "random", "weights_digest": "ab", "dtype": "float16"}
    spec = FeatureSpec(**{**features, "shape": shape, "precision": "float32", "resize": "bilinear", **changes})
    config = {**vars(decoder.config), "feature_shape": list(shape)}
    search = {"beam_width": 3, "length_penalty": 0.7}
    info = ModelInfo(config, spec, decoders.LENGTH, vocabulary.digest, "", {}, search)
    export.write(decoder, vocabulary, info, str(directory))
    return str(directory)


def call(signature, features, beam_width=3, max_length=decoders.LENGTH, length_penalty=0.6):
    found = signature(
        features=tf.constant(features),
        beam_width=tf.constant(beam_width),
        max_length=tf.constant(max_length),
        length_penalty=tf.constant(length_penalty),
    )
    return {name: tensor.numpy() for name, tensor in found.items()}


def features_for(decoder, size: int = 5) -> np.ndarray:
    return decoders.batch(size, shape=decoder.config.feature_shape).features


@pytest.mark.parametrize("kind", decoders.KINDS)
def test_the_export_gives_what_the_model_in_memory_gives(kind, tmp_path):
    decoder = decoders.make(kind)
    features = features_for(decoder)
    directory = write(decoder, tmp_path / "export")
    in_memory = call(CaptionModule(decoder).caption, features)
    saved = call(tf.saved_model.load(directory).signatures["caption"], features)
    rebuilt = call(CaptionModule(export.load_export(directory, open_model(directory)[0])).caption, features)
    assert saved["ids"].shape == (5, 3, 6) and not np.isin(saved["ids"], [START, UNK]).any()
    assert set(saved) == {"ids", "log_prob", "length"} | ({"attention"} if decoder.attention else set())
    for found in (saved, rebuilt):
        assert np.array_equal(found["ids"], in_memory["ids"]) and np.array_equal(found["length"], in_memory["length"])
        np.testing.assert_allclose(found["log_prob"], in_memory["log_prob"], atol=1e-5)


@pytest.mark.parametrize("kind", decoders.KINDS)
def test_scores_and_attention_equal_teacher_forcing(kind):
    """Every caption found, scored again by what training uses."""
    decoder = decoders.make(kind)
    features = features_for(decoder)
    found = call(CaptionModule(decoder).caption, features, 4, length_penalty=0.0)
    for image in range(5):
        for place in range(4):
            ids, length = found["ids"][image, place], found["length"][image, place]
            words_in = np.array([[START, *ids[:-1]]])
            logits, attention = decoder((features[image : image + 1], words_in), seed=None)
            log_probs = decoders.log_softmax(logits)[0]
            total = log_probs[np.arange(length), ids[:length]].sum()
            assert total == pytest.approx(found["log_prob"][image, place], abs=1e-4)
            if decoder.attention:
                weights = found["attention"][image, place]
                np.testing.assert_allclose(weights[:length], attention[0, :length], atol=1e-5)
                np.testing.assert_allclose(weights[:length].sum(-1), 1, atol=1e-5)
                assert (weights[length:] == 0).all()
        assert (np.diff(found["log_prob"][image]) <= 0).all()
        assert len({tuple(ids) for ids in found["ids"][image]}) == 4


def test_a_beam_of_one_is_greedy():
    decoder = decoders.make("two_layers")
    features = features_for(decoder)
    found = call(CaptionModule(decoder).caption, features, 1)["ids"][:, 0]
    image = decoder.encode(features)
    state, last = decoder.initial_state(image), np.full(5, START)
    going_on = np.full(5, True)
    for time in range(found.shape[1]):
        logits, state = decoder.step(last, state, image)
        logits = logits.numpy()
        logits[:, [0, START, UNK]] = -np.inf
        last = logits.argmax(-1)
        assert np.array_equal(found[:, time], np.where(going_on, last, 0))
        going_on &= last != 2


def test_the_export_needs_no_python_of_ours(tmp_path):
    directory = write(decoders.make("attention"), tmp_path / "export")
    code = (
        "import json, sys, tensorflow as tf\n"
        f"f = tf.saved_model.load({directory!r}).signatures['caption']\n"
        "o = f(features=tf.ones([2, 4, 5]), beam_width=tf.constant(2), max_length=tf.constant(5),"
        " length_penalty=tf.constant(0.0))\n"
        "assert not {'trainer', 'pipelines', 'tfrecords_schema'} & set(sys.modules)\n"
        "print(json.dumps(o['ids'].numpy().tolist()))"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    captioner = Captioner(directory, Search(2, 5, 0.0)).load()
    texts = [[c.text for c in image] for image in captioner(np.ones((2, 4, 5), np.float32))]
    assert [[VOCABULARY.decode(ids) for ids in image] for image in json.loads(found.stdout)] == texts


def test_an_ensemble_averages_probabilities(tmp_path):
    """Greedy captions of three different decoders, against averaging by hand."""
    members = [decoders.make("lstm"), decoders.make("gru_initial_state", scale=0.5), decoders.make("tied", scale=0.9)]
    directories = [write(decoder, tmp_path / str(i)) for i, decoder in enumerate(members)]
    info = export.run(ensemble=directories, output=str(tmp_path / "all"))
    assert len(info.decoder["ensemble"]) == 3 and info.search["beam_width"] == 3
    features = features_for(members[0])
    found = call(tf.saved_model.load(str(tmp_path / "all")).signatures["caption"], features, 1, length_penalty=0.0)

    images = [decoder.encode(features) for decoder in members]
    states = [decoder.initial_state(image) for decoder, image in zip(members, images, strict=True)]
    last, total, going_on = np.full(5, START), np.zeros(5), np.full(5, True)
    for time in range(found["ids"].shape[2]):
        probabilities = []
        for i, decoder in enumerate(members):
            logits, states[i] = decoder.step(last, states[i], images[i])
            probabilities.append(np.exp(decoders.log_softmax(logits)))
        mean = np.mean(probabilities, axis=0)
        allowed = np.where(np.isin(np.arange(decoders.WORDS), [0, START, UNK]), -1, mean)
        last = allowed.argmax(-1)
        total += np.where(going_on, np.log(mean[np.arange(5), last]), 0)
        assert np.array_equal(found["ids"][:, 0, time], np.where(going_on, last, 0))
        going_on &= last != 2
    np.testing.assert_allclose(found["log_prob"][:, 0], total, atol=1e-4)
    captions = Captioner(str(tmp_path / "all"), Search(2, 5, 0.0)).load()(features)
    assert len(captions) == 5


def test_an_ensemble_of_one_model_twice_is_that_model(tmp_path):
    directories = [write(decoders.make("attention"), tmp_path / name) for name in ("one", "same")]
    export.main(["--ensemble", *directories, "--output", str(tmp_path / "two")])
    features = features_for(decoders.make("attention"))
    one, two = (call(tf.saved_model.load(str(tmp_path / n)).signatures["caption"], features) for n in ("one", "two"))
    assert np.array_equal(one["ids"], two["ids"])
    np.testing.assert_allclose(one["log_prob"], two["log_prob"], atol=1e-5)


def test_models_that_do_not_fit_make_no_ensemble(tmp_path, capsys):
    one = write(decoders.make("lstm"), tmp_path / "one")
    other_words = Vocabulary((*VOCABULARY.words[:-1], "zebra"), VOCABULARY.counts)
    words = write(decoders.make("lstm"), tmp_path / "words", other_words)
    weights = write(decoders.make("lstm"), tmp_path / "weights", weights_digest="cd")
    same = write(decoders.make("lstm"), tmp_path / "same")
    export.run(ensemble=[one, same], output=str(tmp_path / "all"))
    for ensemble, message in (
        ([one], "--ensemble: expected two exports or more, found 1"),
        ([one, words], f"--ensemble: {words} and {one} have different words"),
        ([one, weights], "--ensemble: features: weights_digest differs"),
        ([one, str(tmp_path / "nowhere")], "--ensemble: expected an export directory with model_info.json"),
        ([one, same], f"--output: {tmp_path / 'all'} exists; give --overwrite"),
        ([one, one], "--ensemble: expected different directories"),
        ([one, str(tmp_path / "all")], "--ensemble: expected different directories, and another one as --output"),
    ):
        with pytest.raises(SystemExit) as exit_:
            export.main(["--ensemble", *ensemble, "--output", str(tmp_path / "all")])
        stderr = capsys.readouterr().err
        assert exit_.value.code == 2 and message in stderr and stderr.count("\n") == 1
    with pytest.raises(InputError, match=r"expected exports of trainer.task, found an ensemble"):
        export.run(ensemble=[one, str(tmp_path / "all")], output=str(tmp_path / "more"))
    other = write(decoders.make("lstm", scale=0.3), tmp_path / "other")
    shutil.rmtree(tmp_path / "other/variables")
    shutil.copytree(tmp_path / "one/variables", tmp_path / "other/variables")
    with pytest.raises(InputError, match=r"its weights are not those that model_info.json names"):
        export.load_export(other, open_model(other)[0])
    (tmp_path / "one/variables/variables.index").unlink()
    with pytest.raises(InputError, match="expected the weights of its configuration"):
        export.load_export(one, open_model(one)[0])


def test_overwriting_replaces_exports_and_nothing_else(tmp_path):
    """A directory that holds anything of the user's is refused before anything is loaded, and left as it is."""
    members = [write(decoders.make("lstm"), tmp_path / name) for name in ("one", "two")]
    output = tmp_path / "all"
    export.run(ensemble=members, output=str(output))
    export.run(ensemble=members, output=str(output), overwrite=True)
    (output / "thesis.txt").write_text("mine")
    home, file = tmp_path / "home", tmp_path / "file"
    home.mkdir()
    (home / "thesis.txt").write_text("mine")
    file.write_text("mine")
    for place in (output, home, file):
        with pytest.raises(InputError, match=f"--output: expected an export or nothing in {place}, found"):
            export.run(ensemble=members, output=str(place), overwrite=True)
    assert (output / "thesis.txt").exists() and (home / "thesis.txt").exists() and file.read_text() == "mine"
    with pytest.raises(InputError, match="--output: expected a directory, found an empty name"):
        export.run(ensemble=members, output="")

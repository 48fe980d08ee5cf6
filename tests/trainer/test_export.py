"""The exported model: the same as in memory, without Python of ours; and several as one."""

import ast
import functools
import itertools
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from pipelines.captions.captioner import Captioner
from pipelines.captions.exports import open_model
from pipelines.settings.search import Search
from tests.support import ROOT, commands, decoders
from tests.support.outputs import replace
from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests.features_info import FeatureSpec
from tfrecords_schema.manifests.model_info import ModelInfo
from tfrecords_schema.vocabulary import END, PAD, START, UNK, Vocabulary
from trainer import export
from trainer.exporting import saved_model
from trainer.model.decoder import Decoder
from trainer.model.exported import load_export
from trainer.search.caption_module import CaptionModule

VOCABULARY = Vocabulary(
    ("<pad>", "<start>", "<end>", "<unk>", *(f"word{i}" for i in range(decoders.WORDS - 4))), (0,) * decoders.WORDS
)

SEARCH = Search(beam_width=2, captions_per_image=2, max_length=5, min_length=2, length_penalty=0.0, forbid_unk=True)
NONE = np.zeros([0], np.int32)
FREE = {"min_length": 0, "no_repeat_ngram": 0, "forbid_unk": True, "forbidden": NONE}
CONSTRAINED = {"min_length": 5, "no_repeat_ngram": 2, "forbid_unk": False}
ONE_GROUP = {"beam_groups": 1, "diversity_penalty": 0.0}
ENSEMBLE = {"lstm": 0.7, "gru_initial_state": 0.5, "tied": 0.9}  # kinds, and how far their weights spread
# All kinds; those are fast whose parts the others have in other combinations.
FEW = ("lstm", "gru_initial_state", "attention_tied", "luong_layers")
MANY = [kind if kind in FEW else pytest.param(kind, marks=pytest.mark.slow) for kind in decoders.KINDS]


def write(decoder, directory, vocabulary=VOCABULARY, **changes) -> str:
    shape = decoder.config.feature_shape
    features = {"extractor": "tiny", "layer": "means", "weights": "random", "weights_digest": "ab", "dtype": "float16"}
    spec = FeatureSpec(**{**features, "shape": shape, "precision": "float32", "resize": "bilinear", **changes})
    config = {**vars(decoder.config), "feature_shape": list(shape)}
    search = {"beam_width": 3, "length_penalty": 0.7}
    info = ModelInfo(config, spec, decoders.LENGTH, vocabulary.digest, "", {}, search)
    saved_model.write(decoder, vocabulary, info, str(directory))
    return str(directory)


def call(signature, features, beam_width=3, max_length=decoders.LENGTH, length_penalty=0.6, **constraints):
    search = {"beam_width": beam_width, "max_length": max_length, "length_penalty": length_penalty}
    return tensors(signature, features=features, **search, **{**ONE_GROUP, **rules(features), **constraints})


def rules(features):
    """None, but that UNK is not said."""
    return {**FREE, "prefix": np.zeros([len(features), 0], np.int32)}


def draw(signature, features, uniform, temperature=1.0, top_p=1.0, **constraints):
    how = {"uniform": uniform, "temperature": temperature, "top_p": top_p}
    return tensors(signature, features=features, **how, **{**rules(features), **constraints})


def tensors(signature, **inputs):
    found = signature(**{name: tf.constant(value) for name, value in inputs.items()})
    return {name: tensor.numpy() for name, tensor in found.items()}


def features_for(decoder, size: int = 5) -> np.ndarray:
    return decoders.batch(size, shape=decoder.config.feature_shape).features


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A function: kind -> the directory of its export; read only."""
    root = tmp_path_factory.mktemp("exports")

    @functools.cache
    def directory(kind: str) -> pathlib.Path:
        return pathlib.Path(write(decoders.make(kind, ENSEMBLE.get(kind, 0.7)), root / kind))

    return directory


@pytest.fixture(scope="module")
def ensemble(written, tmp_path_factory) -> tuple[pathlib.Path, ModelInfo]:
    """The export of three different decoders as one, and what the command gave for it; read only."""
    output = tmp_path_factory.mktemp("ensemble") / "all"
    return output, commands.export(ensemble=[str(written(kind)) for kind in ENSEMBLE], output=str(output))


@pytest.fixture(scope="module")
def exported(written, request):
    """A function: kind or "ensemble" -> (the SavedModel's signatures, the decoders in it, built anew)."""

    @functools.cache
    def model(kind: str):
        members = [rebuilt(written(k)) for k in (ENSEMBLE if kind == "ensemble" else [kind])]
        directory = request.getfixturevalue("ensemble")[0] if kind == "ensemble" else written(kind)
        return tf.saved_model.load(str(directory)), members

    def signatures(kind: str):
        loaded, members = model(kind)
        return loaded.signatures, members

    return signatures


def rebuilt(directory) -> Decoder:
    return load_export(str(directory), open_model(str(directory))[0])


@pytest.mark.parametrize("kind", MANY)
def test_the_export_gives_what_the_model_in_memory_gives(exported, kind):
    decoder = decoders.make(kind, ENSEMBLE.get(kind, 0.7))
    features = features_for(decoder)
    signatures, (member,) = exported(kind)
    in_memory = call(CaptionModule(decoder).caption, features)
    saved = call(signatures["caption"], features)
    rebuilt = call(CaptionModule(member).caption, features)
    assert saved["ids"].shape == (5, 3, 6) and not np.isin(saved["ids"], [START, UNK]).any()
    assert set(saved) == {"ids", "log_prob", "length", "word_log_prob"} | (
        {"attention"} if decoder.attention else set()
    )
    for found in (saved, rebuilt):
        assert np.array_equal(found["ids"], in_memory["ids"]) and np.array_equal(found["length"], in_memory["length"])
        np.testing.assert_allclose(found["log_prob"], in_memory["log_prob"], atol=1e-5)


def teacher_forced(members, features, ids, length):
    """Captions `[B, K, T]` scored by what training uses -> (log probabilities `[B, K]`, attention of the first)."""
    images, places, steps = ids.shape
    given = np.concatenate([np.full((images, places, 1), START), ids], axis=2).reshape(-1, 1 + steps)
    forced = [decoders.forced(decoder, features, given) for decoder in members]
    mean = np.mean([np.exp(decoders.log_softmax(logits)) for logits, _ in forced], axis=0)
    picked = np.log(np.take_along_axis(mean.reshape(images, places, steps, -1), ids[..., None], -1)[..., 0])
    attention = forced[0][1]
    if attention is not None:
        attention = attention.reshape(images, places, steps, -1)
    return np.where(np.arange(steps) < length[..., None], picked, 0).sum(-1), attention


def check_captions(members, features, found):
    """log_prob and attention of all captions equal teacher forcing; END is last, and PAD all that follows."""
    log_prob, attention = teacher_forced(members, features, found["ids"], found["length"])
    np.testing.assert_allclose(found["log_prob"], log_prob, atol=1e-4)
    np.testing.assert_allclose(found["word_log_prob"].sum(-1), log_prob, atol=1e-4)
    steps = found["ids"].shape[2]
    is_word = np.arange(steps) < found["length"][..., None]
    assert ((found["ids"] != PAD) == is_word).all() and (found["length"] > 0).all()
    ends = (found["ids"] == END).sum(-1)
    last = np.take_along_axis(found["ids"], found["length"][..., None] - 1, -1)[..., 0]
    assert (ends == (last == END)).all() and ((ends == 1) | (found["length"] == steps)).all()
    assert ("attention" in found) == (attention is not None)
    if attention is not None:
        np.testing.assert_allclose(found["attention"], np.where(is_word[..., None], attention, 0), atol=1e-5)
        np.testing.assert_allclose(found["attention"].sum(-1), is_word, atol=1e-5)


@pytest.mark.parametrize("constraints", [{}, CONSTRAINED], ids=["free", "constrained"])
@pytest.mark.parametrize("kind", [*MANY, "ensemble"])
def test_scores_and_attention_equal_teacher_forcing(exported, kind, constraints):
    """Every caption that the SavedModel finds or draws, scored again by what training uses."""
    signatures, members = exported(kind)
    features = features_for(members[0])
    found = call(signatures["caption"], features, 4, length_penalty=0.8, **constraints)
    check_captions(members, features, found)
    score = found["log_prob"] / ((5 + found["length"]) / 6) ** 0.8
    has_end = (found["ids"] == END).any(-1)
    assert (np.diff(has_end.astype(int)) <= 0).all(), "what was cut is last"
    assert (np.diff(score)[has_end[:, 1:] == has_end[:, :-1]] <= 1e-6).all(), "else best first"
    assert all(len({tuple(ids) for ids in image}) == 4 for image in found["ids"]), "all different"
    uniform = np.random.default_rng(0).random((5, 6, decoders.LENGTH - 1), np.float32)
    drawn = draw(signatures["sample"], features, uniform, 1.3, 0.95, **constraints)
    check_captions(members, features, drawn)
    assert drawn["ids"].shape == (5, 6, decoders.LENGTH - 1)
    for ids in np.concatenate([found["ids"], drawn["ids"]], axis=1).reshape(-1, decoders.LENGTH - 1):
        said = [word for word in ids if word not in (PAD, END)]
        assert START not in said and (constraints or UNK not in said)
        if constraints:
            assert len(said) >= 3 and len(set(itertools.pairwise(said))) == len(said) - 1


@pytest.mark.parametrize("kind", ["lstm", "attention_tied", "ensemble"])
def test_given_captions_have_the_scores_that_finding_them_had(exported, kind):
    signatures, members = exported(kind)
    features = features_for(members[0])
    found = call(signatures["caption"], features, 4, beam_groups=2, diversity_penalty=1.0)
    check_captions(members, features, found)
    for place in range(4):
        scored = tensors(signatures["score"], features=features, ids=found["ids"][:, place])
        np.testing.assert_allclose(scored["word_log_prob"], found["word_log_prob"][:, place], atol=1e-4)


@pytest.mark.parametrize("kind", ["lstm", "attention_tied"])
def test_captions_begin_with_what_is_given_and_say_nothing_forbidden(exported, kind):
    """Each image with a beginning of its own; one has UNK in it, which is not said otherwise, and one has none."""
    signatures, members = exported(kind)
    features = features_for(members[0])
    prefix = np.array([[4, 5], [UNK, PAD], [9, 9], [PAD, PAD], [6, PAD]], np.int32)
    how = {"prefix": prefix, "forbidden": np.array([5, 7], np.int32), "no_repeat_ngram": 1}
    uniform = np.random.default_rng(3).random((5, 4, decoders.LENGTH - 1), np.float32)
    for found in (
        call(signatures["caption"], features, 4, **how),
        draw(signatures["sample"], features, uniform, **how),
    ):
        check_captions(members, features, found)
        for begins, captions in zip(prefix, found["ids"], strict=True):
            begins = begins[begins != PAD]
            for ids in captions:
                assert np.array_equal(ids[: len(begins)], begins)
                assert not np.isin(ids[len(begins) :], [5, 7, UNK]).any()


@pytest.mark.parametrize("kind", ["lstm", "attention_tied", "ensemble"])
def test_an_image_has_the_same_captions_in_any_batch(exported, kind):
    """In ten batches of different sizes, places and mates."""
    signatures, members = exported(kind)
    generator = np.random.default_rng(1)
    features = generator.normal(size=(17, *members[0].config.feature_shape)).astype(np.float32)
    uniform = generator.random((17, 3, decoders.LENGTH - 1), np.float32)

    def both(images):
        drawn = draw(signatures["sample"], features[images], uniform[images], 0.9, 0.9, no_repeat_ngram=2)
        return call(signatures["caption"], features[images], no_repeat_ngram=2), drawn

    alone = both([0])
    for size in (1, 2, 3, 4, 5, 7, 8, 11, 16, 17):
        images = generator.permutation([0, *generator.choice(np.arange(1, 17), size - 1, replace=False)])
        place = list(images).index(0)
        for one, found in zip(alone, both(images), strict=True):
            assert np.array_equal(found["ids"][place], one["ids"][0])
            np.testing.assert_allclose(found["log_prob"][place], one["log_prob"][0], atol=1e-5)


@pytest.mark.parametrize("how", [{"top_p": 0.0}, {"temperature": 1e-4}])
def test_where_only_the_most_probable_word_is_left_samples_are_greedy(exported, how):
    signatures, members = exported("lstm")
    features = features_for(members[0])
    uniform = np.random.default_rng(2).random((5, 2, decoders.LENGTH - 1), np.float32)
    greedy = call(signatures["caption"], features, 1, length_penalty=0.0)
    drawn = draw(signatures["sample"], features, uniform, **how)
    for place in (0, 1):
        assert np.array_equal(drawn["ids"][:, place], greedy["ids"][:, 0])
        np.testing.assert_allclose(drawn["log_prob"][:, place], greedy["log_prob"][:, 0], atol=1e-5)


def test_a_beam_of_one_is_greedy():
    decoder = decoders.make("two_layers")
    features = features_for(decoder)
    found = call(CaptionModule(decoder).caption, features, 1, length_penalty=0.0)["ids"][:, 0]
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


@pytest.mark.slow
def test_the_export_needs_no_python_of_ours(written, tmp_path):
    directory = str(written("attention"))
    code = (
        "import json, sys, tensorflow as tf\n"
        f"f = tf.saved_model.load({directory!r}).signatures['caption']\n"
        "o = f(features=tf.ones([2, 4, 5]), beam_width=tf.constant(2), max_length=tf.constant(5),"
        " length_penalty=tf.constant(0.0), min_length=tf.constant(0), no_repeat_ngram=tf.constant(0),"
        " forbid_unk=tf.constant(True), beam_groups=tf.constant(1), diversity_penalty=tf.constant(0.0),"
        " forbidden=tf.constant([], tf.int32), prefix=tf.zeros([2, 0], tf.int32))\n"
        "assert not {'trainer', 'pipelines', 'tfrecords_schema'} & set(sys.modules)\n"
        "print(json.dumps(o['ids'].numpy().tolist()))"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    captioner = Captioner(directory, SEARCH).load()
    texts = [[" ".join(c.words) for c in image] for image in captioner(np.ones((2, 4, 5), np.float32), ["a", "b"])]
    assert [[VOCABULARY.decode(ids) for ids in image] for image in json.loads(found.stdout)] == texts


def test_an_ensemble_averages_probabilities(exported, ensemble):
    """Greedy captions of three different decoders, against averaging by hand."""
    directory, info = ensemble
    signatures, members = exported("ensemble")
    assert len(info.decoder["ensemble"]) == 3 and info.search["beam_width"] == 3
    features = features_for(members[0])
    found = call(signatures["caption"], features, 1, length_penalty=0.0)

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
    captions = Captioner(str(directory), SEARCH).load()(features, [""] * 5)
    assert len(captions) == 5


def test_an_ensemble_of_one_model_twice_is_that_model(written, exported, tmp_path):
    directories = [str(written("attention_tied")), shutil.copytree(written("attention_tied"), str(tmp_path / "same"))]
    export.main(["--ensemble", *directories, "--output", str(tmp_path / "two")])
    features = features_for(decoders.make("attention_tied"))
    saved = exported("attention_tied")[0], tf.saved_model.load(str(tmp_path / "two")).signatures
    one, two = (call(signatures["caption"], features) for signatures in saved)
    assert np.array_equal(one["ids"], two["ids"])
    np.testing.assert_allclose(one["log_prob"], two["log_prob"], atol=1e-5)


def test_models_that_do_not_fit_make_no_ensemble(written, tmp_path, capsys):
    one, words, weights, same, other = (
        shutil.copytree(written("lstm"), str(tmp_path / name)) for name in ("one", "words", "weights", "same", "other")
    )
    replace(tmp_path / "words/vocabulary.txt", VOCABULARY.words[-1], "zebra")
    other_words = Vocabulary((*VOCABULARY.words[:-1], "zebra"), VOCABULARY.counts)
    replace(tmp_path / "words/model_info.json", VOCABULARY.digest, other_words.digest)
    replace(tmp_path / "weights/model_info.json", '"weights_digest": "ab"', '"weights_digest": "cd"')
    commands.export(ensemble=[one, same], output=str(tmp_path / "all"))
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
        commands.export(ensemble=[one, str(tmp_path / "all")], output=str(tmp_path / "more"))
    digest = open_model(other)[0].digest
    replace(tmp_path / "other/model_info.json", digest, digest[::-1])
    with pytest.raises(InputError, match=r"expected the weights that model_info.json names, found others"):
        load_export(other, open_model(other)[0])
    (tmp_path / "one/variables/variables.index").unlink()
    with pytest.raises(
        InputError, match=r"variables.index: expected the weights of a model, found something unreadable"
    ):
        load_export(one, open_model(one)[0])


def test_overwriting_replaces_exports_and_nothing_else(written, tmp_path):
    """A directory that holds anything of the user's is refused before anything is loaded, and left as it is."""
    members = [str(written(kind)) for kind in ("lstm", "tied")]
    output = tmp_path / "all"
    commands.export(ensemble=members, output=str(output))
    commands.export(ensemble=members, output=str(output), overwrite=True)
    (output / "thesis.txt").write_text("mine")
    home, file = tmp_path / "home", tmp_path / "file"
    home.mkdir()
    (home / "thesis.txt").write_text("mine")
    file.write_text("mine")
    for place in (output, home, file):
        with pytest.raises(InputError, match=f"--output: expected an export or nothing in {place}, found"):
            commands.export(ensemble=members, output=str(place), overwrite=True)
    assert (output / "thesis.txt").exists() and (home / "thesis.txt").exists() and file.read_text() == "mine"
    with pytest.raises(InputError, match="--output: expected a directory, found ''"):
        commands.export(ensemble=members, output="")


@pytest.mark.slow
def test_readers_find_a_whole_export_whenever_it_is_killed(written, tmp_path):
    """The old one, the new one, or none; the same command mends it. See tests/support/killed_export.py."""
    for name, kind in (("old", "lstm"), ("new", "tied")):
        shutil.copytree(written(kind), tmp_path / name)
    command = [sys.executable, "-m", "tests.support.killed_export", str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    found = ast.literal_eval(ended.stdout.splitlines()[-1])
    assert found.keys() == {"old", "new", "none"} and found["none"] <= 2

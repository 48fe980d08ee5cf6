"""A decoder of im2txt's weights against the graph that has them, stepped as im2txt does it; small, without a CNN."""

import numpy as np
import pytest
import tensorflow as tf

from tests.support import im2txt_graph
from tfrecords_schema.errors import InputError
from tfrecords_schema.vocabulary import END, PAD, START, Vocabulary
from trainer.im2txt import decoder, tensors
from trainer.search.caption_module import CaptionModule

ROWS = 26
COUNTS = "a 9\n</S> 8\n<S> 8\n" + "".join(f"w{i} {7 - i // 4}\n" for i in range(19))  # of 26 rows, 3 behind UNK
IMAGES = 24


def small(**changes) -> im2txt_graph.Model:
    """Captions end now and then; nothing says START, as in models that have learned."""
    model = im2txt_graph.build(ROWS, size=12, units=10, cnn=False, **changes)
    model.weights["logits/biases"][1] += 2
    model.weights["logits/biases"][2] -= 40
    return model


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    return np.random.default_rng(1).normal(0, 1, (IMAGES, 2048)).astype(np.float32)


def read(found: tensors.Tensors):
    vocabulary, order = Vocabulary.of_im2txt(COUNTS, decoder.rows(found), "word_counts.txt")
    return decoder.make(found, order), vocabulary, order


@pytest.fixture(params=range(3), ids=["kernel", "weights", "Matrix"])
def model(request):
    return small(cell=im2txt_graph.CELLS[request.param])


@pytest.mark.parametrize("version", [1, 2])
def test_checkpoints_are_read_to_the_last_bit(model, version, tmp_path):
    path = model.save_checkpoint(tmp_path / "train/model.ckpt-7", version)
    given = [path, str(tmp_path / "train"), *([f"{path}.index"] if version == 2 else [])]
    for place in given:
        found = tensors.of_checkpoint("--checkpoint", place)
        for name, values in model.weights.items():
            np.testing.assert_array_equal(found.take(values.shape, name), values)


def test_a_frozen_graph_is_read_to_the_last_bit(model, tmp_path):
    found = tensors.of_graph("--graph", model.save_frozen(tmp_path / "graph.pb"))
    for name, values in model.weights.items():
        np.testing.assert_array_equal(found.take(values.shape, name), values)


def test_each_step_gives_the_softmax_of_the_graph(model, features):
    ours, _, order = read(tensors.Tensors("test", model.weights))
    words = np.random.default_rng(2).integers(0, ROWS, (4, IMAGES))  # by its ids, START first
    words[0] = 2
    ids = np.argsort(order)[words + 1]  # the place of each row among ours; PAD, -1, sorts first
    chances = []
    state = ours.initial_state(ours.encode(features))
    for each in ids:
        logits, state = ours.step(tf.constant(each, tf.int32), state, None)
        chances.append(tf.nn.softmax(logits).numpy())
    with model.session() as session:
        theirs = session.run("lstm/initial_state:0", {"image_feed:0": features})
        for each, found in zip(words, chances, strict=True):
            feed = {"input_feed:0": each, "lstm/state_feed:0": theirs}
            softmax, theirs = session.run(["softmax:0", "lstm/state:0"], feed)
            assert softmax.max() > 0.2
            np.testing.assert_allclose(found[:, 1:], softmax[:, order[1:]], atol=1e-6)
            assert (found[:, PAD] == 0).all()


def searched(module: CaptionModule, features, width: int, longest: int, forbidden=()) -> dict[str, np.ndarray]:
    """The signature's outputs; no length penalty, and UNK is allowed, unless ids are forbidden."""
    none = tf.zeros([IMAGES, 0], tf.int32)
    ids = tf.constant(forbidden, tf.int32, [len(forbidden)])
    found = module.caption(features, width, longest, 0.0, 1, 0.0, 0, 0, bool(forbidden), ids, none)
    return {name: tensor.numpy() for name, tensor in found.items()}


@pytest.fixture(scope="module")
def one_model():
    """(graph, im2txt's search and the product's own over its decoder, the row of each id)."""
    model = small()
    ours, _, order = read(tensors.Tensors("test", model.weights))
    return model, CaptionModule(ours, ends_each=True), CaptionModule(ours), order


@pytest.mark.parametrize(("width", "longest"), [(3, 20), (5, 6)])
def test_captions_are_those_of_im2txts_own_search(one_model, features, width, longest):
    model, as_im2txt, usual, order = one_model
    found, other = (searched(module, features, width, longest) for module in (as_im2txt, usual))
    ended = 0
    with model.session() as session:
        for row, feature in enumerate(features):
            theirs = im2txt_graph.beam_search(session, feature[None], start=2, end=1, width=width, longest=longest)
            ended += sum(words[-1] == 1 for _, words in theirs)
            for place, (log_prob, words) in enumerate(theirs):
                ids = found["ids"][row, place, : found["length"][row, place]]
                assert [order[i] for i in ids] == words
                assert found["log_prob"][row, place] == pytest.approx(log_prob, abs=1e-4)
    assert ended > IMAGES and (found["ids"][:, 0] != other["ids"][:, 0]).any()  # another search would be seen


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("logits/biases", None, r"a tensor logits/biases \[any\], found none of this name"),
        ("seq_embedding/map", np.zeros([25, 12]), r"a tensor seq_embedding/map \[26, 12\], found \[25, 12\]"),
        ("image_embedding/weights", np.zeros([1536, 12]), r".* \[2048, any\], found \[1536, 12\]"),
        ("lstm/basic_lstm_cell/kernel", None, r".*/kernel \[22, 40\], found none of this name"),
        ("lstm/basic_lstm_cell/kernel", np.zeros([24, 40]), r".* \[22, 40\], found \[24, 40\]"),
        ("lstm/basic_lstm_cell/bias", np.full([40], np.nan), ".* found values that are infinite or no numbers"),
    ],
)
def test_what_does_not_fit_is_named(name, values, message):
    weights = {**small().weights, name: values}
    with pytest.raises(InputError, match=f"^file: expected im2txt's Show and Tell, with {message}"):
        read(tensors.Tensors("file", {name: values for name, values in weights.items() if values is not None}))


def test_start_is_never_said_and_unknown_words_are_when_allowed(features):
    model = small()
    model.weights["logits/biases"][2] += 80
    model.weights["logits/biases"][[22, 25]] += 6  # UNK, and a row behind it
    ours, vocabulary, _ = read(tensors.Tensors("test", model.weights))
    unknown, module = vocabulary.further_unknown, CaptionModule(ours, ends_each=True)
    for forbidden in ((), unknown):
        ids = set(searched(module, features, 3, 8, forbidden)["ids"].ravel().tolist())
        assert START not in ids and END in ids
        said = {i for i in ids if vocabulary.words[i] == "<unk>"}
        assert not said if forbidden else said >= {3, unknown[-1]}

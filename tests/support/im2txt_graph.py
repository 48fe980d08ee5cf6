"""Show and Tell as TensorFlow 1 has it (tensorflow/models, research/im2txt), with seeded weights and no code of ours.

Its parts have the names of im2txt and TF-Slim. What a graph gives is stepped through word by word as im2txt's
`CaptionGenerator` does it.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
# (kernel, bias) of the LSTM, by versions of TensorFlow, the newest first.
CELLS = (
    ("basic_lstm_cell/kernel", "basic_lstm_cell/bias"),
    ("basic_lstm_cell/weights", "basic_lstm_cell/biases"),
    ("BasicLSTMCell/Linear/Matrix", "BasicLSTMCell/Linear/Bias"),
)


@dataclasses.dataclass(frozen=True)
class Model:
    """A graph, and the weights of its variables by name."""

    graph: Any
    weights: dict[str, np.ndarray]

    def session(self) -> Any:
        """With the weights."""
        session = v1.Session(graph=self.graph)
        with self.graph.as_default():
            given = {variable.initial_value: self.weights[variable.op.name] for variable in v1.global_variables()}
            session.run(v1.global_variables_initializer(), given)
        return session

    def save_checkpoint(self, path: pathlib.Path, version: int) -> str:
        """As TensorFlow 1's Saver does, in its format of 2016 (1) or the one after that (2)."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with self.session() as session, self.graph.as_default():
            saver = v1.train.Saver(write_version={1: v1.train.SaverDef.V1, 2: v1.train.SaverDef.V2}[version])
            return saver.save(session, str(path), write_meta_graph=False)

    def save_frozen(self, path: pathlib.Path) -> str:
        """As one file, variables as constants."""
        with self.session() as session:
            frozen = v1.graph_util.convert_variables_to_constants(
                session, self.graph.as_graph_def(), ["softmax", "lstm/initial_state", "lstm/state"]
            )
        path.write_bytes(frozen.SerializeToString())
        return str(path)


def build(words: int, size: int = 512, units: int = 512, cell=CELLS[0], cnn: bool = True, seed: int = 0) -> Model:
    """A model with that many rows for words; without the CNN, `image_feed` takes features `[1, 2048]`."""
    generator = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {}
    graph = tf.Graph()

    def variable(name: str, shape: tuple[int, ...], values: np.ndarray) -> Any:
        # Its initial value is fed: as a constant it would make the graph as large as the model.
        made = v1.get_variable(name, initializer=v1.placeholder(tf.float32, shape), use_resource=False)
        weights[made.op.name] = values.astype(np.float32)
        return made

    def normal(name: str, *shape: int, deviation: float) -> Any:
        return variable(name, shape, generator.normal(0, deviation, shape))

    with graph.as_default():
        if cnn:
            images = _processed(v1.placeholder(tf.string, [], "image_feed"))[None]
            features = tf.reduce_mean(_inception(images, variable, generator), [1, 2])
        else:
            features = v1.placeholder(tf.float32, [None, 2048], "image_feed")
        said = v1.placeholder(tf.int64, [None], "input_feed")
        with v1.variable_scope("image_embedding"):
            image = tf.matmul(features, normal("weights", 2048, size, deviation=0.03))
        with v1.variable_scope("seq_embedding"):
            table = normal("map", words, size, deviation=1.0)
            read = tf.gather(table, said)
        with v1.variable_scope("lstm"):
            kernel = normal(cell[0], size + units, 4 * units, deviation=(size + units) ** -0.5)
            bias = normal(cell[1], 4 * units, deviation=0.2)

            def step(x, state):
                carry, hidden = tf.split(state, 2, 1)
                i, j, f, o = tf.split(tf.matmul(tf.concat([x, hidden], 1), kernel) + bias, 4, 1)
                carry = carry * tf.sigmoid(f + 1.0) + tf.sigmoid(i) * tf.tanh(j)
                return carry, tf.tanh(carry) * tf.sigmoid(o)

            tf.concat(step(image, tf.zeros([tf.shape(image)[0], 2 * units])), 1, name="initial_state")
            carry, hidden = step(read, v1.placeholder(tf.float32, [None, 2 * units], "state_feed"))
            tf.concat([carry, hidden], 1, name="state")
        with v1.variable_scope("logits"):
            logits = tf.matmul(hidden, normal("weights", units, words, deviation=8 * units**-0.5))
            logits += normal("biases", words, deviation=0.5)
        tf.nn.softmax(logits, name="softmax")
    return Model(graph, weights)


def _processed(encoded: Any) -> Any:
    """im2txt's `process_image` outside of training."""
    image = tf.image.convert_image_dtype(tf.image.decode_jpeg(encoded, channels=3), tf.float32)
    image = v1.image.resize_images(image, [346, 346], method=v1.image.ResizeMethod.BILINEAR)
    image = v1.image.resize_image_with_crop_or_pad(image, 299, 299)
    return tf.multiply(tf.subtract(image, 0.5), 2.0)


def _inception(net: Any, variable: Any, generator: np.random.Generator) -> Any:
    """TF-Slim's `inception_v3_base`: images `[B, 299, 299, 3]` -> `[B, 8, 8, 2048]`."""

    def conv(net, depth, height, width, scope, stride=1, padding="SAME"):
        channels = net.shape[-1]
        with v1.variable_scope(scope):
            shape = (height, width, channels, depth)
            kernel = generator.normal(0, (2 / (height * width * channels)) ** 0.5, shape)
            net = tf.nn.conv2d(net, variable("weights", shape, kernel), stride, padding)
            with v1.variable_scope("BatchNorm"):
                beta = variable("beta", (depth,), generator.normal(0, 0.2, depth))
                mean = variable("moving_mean", (depth,), generator.normal(0, 0.2, depth))
                variance = variable("moving_variance", (depth,), generator.uniform(0.6, 1.4, depth))
                return tf.nn.relu(tf.nn.batch_normalization(net, mean, variance, beta, None, 0.001))

    def valid(net, depth, size, scope, stride=1):
        return conv(net, depth, size, size, scope, stride, "VALID")

    def chain(net, *steps):
        for depth, height, width, scope in steps:
            net = conv(net, depth, height, width, scope)
        return net

    def max_pool(net):
        return tf.nn.max_pool2d(net, 3, 2, "VALID")

    def branch(number):
        return v1.variable_scope(f"Branch_{number}")

    def pooled(net, depth):
        with branch(3):
            return conv(tf.nn.avg_pool2d(net, 3, 1, "SAME"), depth, 1, 1, "Conv2d_0b_1x1")

    with v1.variable_scope("InceptionV3"):
        net = valid(net, 32, 3, "Conv2d_1a_3x3", 2)
        net = valid(net, 32, 3, "Conv2d_2a_3x3")
        net = max_pool(conv(net, 64, 3, 3, "Conv2d_2b_3x3"))
        net = valid(net, 80, 1, "Conv2d_3b_1x1")
        net = max_pool(valid(net, 192, 3, "Conv2d_4a_3x3"))
        for block, depth in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
            with v1.variable_scope(block):
                names = (
                    ("Conv2d_0b_1x1", "Conv_1_0c_5x5") if block == "Mixed_5c" else ("Conv2d_0a_1x1", "Conv2d_0b_5x5")
                )
                with branch(0):
                    first = conv(net, 64, 1, 1, "Conv2d_0a_1x1")
                with branch(1):
                    second = chain(net, (48, 1, 1, names[0]), (64, 5, 5, names[1]))
                with branch(2):
                    steps = (64, 1, 1, "Conv2d_0a_1x1"), (96, 3, 3, "Conv2d_0b_3x3"), (96, 3, 3, "Conv2d_0c_3x3")
                    third = chain(net, *steps)
                net = tf.concat([first, second, third, pooled(net, depth)], 3)
        with v1.variable_scope("Mixed_6a"):
            with branch(0):
                first = valid(net, 384, 3, "Conv2d_1a_1x1", 2)
            with branch(1):
                second = chain(net, (64, 1, 1, "Conv2d_0a_1x1"), (96, 3, 3, "Conv2d_0b_3x3"))
                second = valid(second, 96, 3, "Conv2d_1a_1x1", 2)
            net = tf.concat([first, second, max_pool(net)], 3)
        for block, d in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
            with v1.variable_scope(block):
                with branch(0):
                    first = conv(net, 192, 1, 1, "Conv2d_0a_1x1")
                with branch(1):
                    steps = (d, 1, 1, "Conv2d_0a_1x1"), (d, 1, 7, "Conv2d_0b_1x7"), (192, 7, 1, "Conv2d_0c_7x1")
                    second = chain(net, *steps)
                with branch(2):
                    third = chain(net, (d, 1, 1, "Conv2d_0a_1x1"), (d, 7, 1, "Conv2d_0b_7x1"))
                    third = chain(third, (d, 1, 7, "Conv2d_0c_1x7"), (d, 7, 1, "Conv2d_0d_7x1"))
                    third = chain(third, (192, 1, 7, "Conv2d_0e_1x7"))
                net = tf.concat([first, second, third, pooled(net, 192)], 3)
        with v1.variable_scope("Mixed_7a"):
            with branch(0):
                first = valid(conv(net, 192, 1, 1, "Conv2d_0a_1x1"), 320, 3, "Conv2d_1a_3x3", 2)
            with branch(1):
                steps = (192, 1, 1, "Conv2d_0a_1x1"), (192, 1, 7, "Conv2d_0b_1x7"), (192, 7, 1, "Conv2d_0c_7x1")
                second = valid(chain(net, *steps), 192, 3, "Conv2d_1a_3x3", 2)
            net = tf.concat([first, second, max_pool(net)], 3)
        for block, name in (("Mixed_7b", "Conv2d_0b_3x1"), ("Mixed_7c", "Conv2d_0c_3x1")):
            with v1.variable_scope(block):
                with branch(0):
                    first = conv(net, 320, 1, 1, "Conv2d_0a_1x1")
                with branch(1):
                    second = conv(net, 384, 1, 1, "Conv2d_0a_1x1")
                    wide, high = conv(second, 384, 1, 3, "Conv2d_0b_1x3"), conv(second, 384, 3, 1, name)
                    second = tf.concat([wide, high], 3)
                with branch(2):
                    third = chain(net, (448, 1, 1, "Conv2d_0a_1x1"), (384, 3, 3, "Conv2d_0b_3x3"))
                    wide, high = conv(third, 384, 1, 3, "Conv2d_0c_1x3"), conv(third, 384, 3, 1, "Conv2d_0d_3x1")
                    third = tf.concat([wide, high], 3)
                net = tf.concat([first, second, third, pooled(net, 192)], 3)
    return net


def beam_search(
    session, image, start: int, end: int, width: int = 3, longest: int = 20
) -> list[tuple[float, list[int]]]:
    """im2txt's `CaptionGenerator.beam_search`: (log probability, ids without START), best first.

    Complete captions, or, if there are none, those that were cut. This is its first version; a later one has
    `argsort(...)[:-beam_size]`, which by mistake leaves the best words out.
    """
    (state,) = session.run("lstm/initial_state:0", {"image_feed:0": image})
    number = itertools.count()  # states cannot be compared
    partial = [(0.0, next(number), [start], state)]
    complete: list[Any] = []
    for _ in range(longest - 1):
        feed = {
            "input_feed:0": np.array([sentence[-1] for *_, sentence, _ in partial]),
            "lstm/state_feed:0": np.array([state for *_, state in partial]),
        }
        softmax, states = session.run(["softmax:0", "lstm/state:0"], feed)
        before, partial = partial, []
        for (log_prob, _, sentence, _), chances, state in zip(before, softmax, states, strict=True):
            for word in np.argsort(-chances, kind="stable")[:width]:
                if chances[word] < 1e-12:
                    continue
                found = (log_prob + math.log(chances[word]), next(number), [*sentence, int(word)], state)
                kept = complete if word == end else partial
                (heapq.heappush if len(kept) < width else heapq.heappushpop)(kept, found)
        if not partial:
            break
    return [(log_prob, sentence[1:]) for log_prob, _, sentence, _ in sorted(complete or partial, reverse=True)]

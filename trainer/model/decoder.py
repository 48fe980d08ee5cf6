"""The caption decoder: Show and Tell (Vinyals et al. 2015, https://arxiv.org/abs/1411.4555), and with attention Show,
Attend and Tell (Xu et al. 2015, https://arxiv.org/abs/1502.03044)."""

from __future__ import annotations

import functools
from typing import Any, cast

import keras
import tensorflow as tf

from trainer.config import DecoderConfig
from trainer.model.attention import BahdanauAttention, attend
from trainer.model.cells import advance, biases, input_kernels, weights_with
from trainer.model.dropout import drop
from trainer.model.packing import Packed
from trainer.model.scaling import FeatureScaling, pool
from trainer.model.state import Image, State
from trainer.model.unrolled import Seen, unroll

_CELLS = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU}
_STATE_TENSORS = {"lstm": 2, "gru": 1}  # of a cell


class Decoder(keras.Model):
    """An image, then word by word: `encode`, `initial_state`, `step`; `call` is all steps of given captions at once.

    The recurrent layers are Keras', of which `step` only takes the weights (see cells.py). On GPUs, where they are
    cuDNN's, `call` runs them over whole captions; elsewhere it steps over the words without their padding, which is
    faster on processors (see unrolled.py); and so it does with attention, since a state then needs the context that the
    one before it asked for.

    B images, N hypotheses or captions, T words in the longest, M in all, V in the vocabulary, U units, E numbers in an
    embedding, P positions of the feature grid. Masks of dropout follow from a seed (see dropout.py); without one, there
    are none.
    """

    def __init__(self, config: DecoderConfig, dtype: str = "float32"):
        super().__init__(name="decoder", dtype=dtype)
        self.config = config
        self.runs_whole_layers = bool(tf.config.list_physical_devices("GPU"))
        uniform = keras.initializers.RandomUniform(-0.08, 0.08)  # as im2txt
        policy, embedding_dim = {"dtype": self.dtype_policy}, config.embedding_dim
        self.scaling = FeatureScaling(config.feature_scaling, name="scaling")
        self.image_embedding: Any = None
        if config.image_input != "shared_state":
            self.image_embedding = keras.layers.Dense(embedding_dim, name="image_embedding", **policy)
        self.word_embedding = keras.layers.Embedding(
            config.vocabulary_size, embedding_dim, embeddings_initializer=uniform, name="word_embedding", **policy
        )
        # `reset_after`, `recurrent_dropout` and the activations stay as they are: others would switch cuDNN off.
        self.recurrent = [
            _CELLS[config.cell](config.units, return_sequences=True, name=f"{config.cell}_{i}", **policy)
            for i in range(config.layers)
        ]
        states = config.layers * _STATE_TENSORS[config.cell]
        self.first_states = [
            keras.layers.Dense(config.units, "tanh", name=f"first_state_{i}", **policy)
            for i in range({"first_word": 0, "initial_state": states, "shared_state": 1}[config.image_input])
        ]
        self.attention: BahdanauAttention | None = None
        if config.attention == "bahdanau":
            self.grid_scaling = FeatureScaling(config.feature_scaling, name="grid_scaling")
            self.position_embedding = keras.layers.Dense(embedding_dim, name="position_embedding", **policy)
            self.attention = BahdanauAttention(config.attention_units, name="attention", **policy)
            self.gate = keras.layers.Dense(1, "sigmoid", name="gate", **policy)
            self.output_context = keras.layers.Dense(embedding_dim, name="output_context", **policy)
        self.output_embedding: Any = None
        if self.attention or (config.tie_embeddings and config.units != embedding_dim):
            self.output_embedding = keras.layers.Dense(embedding_dim, name="output_embedding", **policy)
        if config.tie_embeddings:
            self.bias = self.add_weight(
                name="bias", shape=(config.vocabulary_size,), initializer="zeros", autocast=False
            )
        else:
            self.logits = keras.layers.Dense(
                config.vocabulary_size, kernel_initializer=uniform, name="logits", **policy
            )

    def build(self, input_shape=None):
        """Makes every weight, so that checkpoints can be loaded."""
        config, embedding_dim, units = self.config, self.config.embedding_dim, self.config.units
        features = (None, config.feature_shape[-1])
        self.scaling.build(features)
        image = self.scaling.compute_output_shape(features)
        if self.image_embedding:
            self.image_embedding.build(image)
            image = (None, embedding_dim)
        self.word_embedding.build((None, None))
        size = embedding_dim * (2 if self.attention else 1)
        for layer in self.recurrent:
            layer.build((None, None, size))
            size = units
        for dense in self.first_states:
            dense.build(image)
        if self.attention:
            positions = (None, None, config.feature_shape[-1])
            self.grid_scaling.build(positions)
            self.position_embedding.build(self.grid_scaling.compute_output_shape(positions))
            self.attention.build((None, None, embedding_dim), (None, units))
            self.gate.build((None, units))
            self.output_context.build((None, embedding_dim))
        if self.output_embedding:
            self.output_embedding.build((None, units))
            units = embedding_dim
        if not config.tie_embeddings:
            self.logits.build((None, units))
        self.built = True

    def call(self, inputs, seed=None):
        """(features `[B, *shape]`, Packed captions) -> (logits float32 `[M, V]` of the words that follow, attention).

        Captions of one image stand side by side, as many for each image. Attention is the weights float32 `[M, P]`, or
        None.
        """
        features, packed = inputs
        image, recurrent_kernels = self.encode(features, seed), self._recurrent_kernels(seed)
        run = self._run_through if self.runs_whole_layers and not self.attention else self._step_through
        outputs, attention = run(packed, packed.owner(features), image, recurrent_kernels, seed)
        return self._logits(drop(outputs, self.config.output_dropout, seed, "output")), attention

    def encode(self, features, seed=None) -> Image:
        """features `[B, *shape]`, of any float type -> what follows from the images alone."""
        features = tf.cast(features, tf.float32)
        whole = drop(self.scaling(pool(features)), self.config.image_dropout, seed, "image")
        embedding = self.image_embedding(whole) if self.image_embedding else whole
        if not self.attention:
            return Image(embedding)
        grid = drop(self.grid_scaling(features), self.config.image_dropout, seed, "grid")
        positions = tf.nn.relu(self.position_embedding(grid))
        positions = drop(positions, self.config.embedding_dropout, seed, "positions")
        return Image(embedding, positions, self.attention.keys(positions))

    def initial_state(self, image: Image, recurrent_kernels=None) -> State:
        """The state after the image and before the first word, one hypothesis an image."""
        size = tf.shape(image.embedding)[0]
        attention = tf.zeros([size, self.config.feature_shape[0]]) if self.attention else ()
        tensors = _STATE_TENSORS[self.config.cell]
        if self.first_states:
            made = [dense(image.embedding) for dense in self.first_states]
            made *= tensors * len(self.recurrent) // len(made)
            return State(tuple(tuple(made[i : i + tensors]) for i in range(0, len(made), tensors)), attention)
        zeros = tf.zeros([size, self.config.units], image.embedding.dtype)
        state = State(((zeros,) * tensors,) * len(self.recurrent), attention)
        product = self._input_product(0, image.embedding)
        return self._advance(image.embedding, product, state, image, recurrent_kernels)[1]

    def context(self, image: Image) -> Image:
        """What `step` reads of the images; of a decoder without attention, nothing."""
        return image._replace(embedding=())

    def step(self, ids, state: State, image: Image):
        """ids `[N]` of the last words, their state -> (logits float32 `[N, V]` of the next words, new state).

        Of `image` only its `context` is read. With attention N is a multiple of B, the hypotheses of one image side by
        side.
        """
        ids, places = tf.unique(ids)  # hypotheses of many images go on from few words: a product for each, no more
        words = self.word_embedding(ids)
        words, products = (tf.gather(each, places) for each in (words, self._input_product(0, words)))
        outputs, state = self._advance(words, products, state, image)
        return self._logits(outputs), state

    def _input_product(self, i: int, x):
        """x `[N, D]`, into layer i (words into the first) -> their part of its input product, `[N, G * U]`."""
        cell = self.recurrent[i].cell
        return tf.matmul(x, input_kernels(cell, x.dtype, x.shape[1])[0]) + biases(cell, x.dtype)[0]

    def _state_product(self, i: int, dtype, recurrent_kernels=None):
        """(kernels `[U, .]`, bias of all) of what layer i makes of its state: gates; to attend, a query and a gate."""
        cell = self.recurrent[i].cell
        kernels = [recurrent_kernels[i] if recurrent_kernels else cell.recurrent_kernel.value]
        made = [biases(cell, dtype)[1]]
        if self.attention and not i:
            kernels += [self.attention.query.kernel.value, self.gate.kernel.value]
            made += [tf.zeros([self.config.attention_units], dtype), tf.cast(self.gate.bias.value, dtype)]
        return [tf.cast(each, dtype) for each in kernels], tf.concat(made, 0)

    def _seen(self, image: Image) -> Seen:
        """What the first layer attends to."""
        dtype, attention = image.keys.dtype, cast(BahdanauAttention, self.attention)
        _, kernel = input_kernels(self.recurrent[0].cell, dtype, self.config.embedding_dim)
        return Seen(image.keys, image.positions, tf.cast(attention.score.kernel.value, dtype)[:, 0], kernel)

    def _advance(self, words, product, state: State, image: Image, recurrent_kernels=None):
        """words `[N, E]` and their products into the cells -> (what the output layers see `[N, .]`, new state)."""
        attention, context = (), None
        layers: list[tuple[Any, ...]] = []
        for i, (layer, before) in enumerate(zip(self.recurrent, state.layers, strict=True)):
            if i:
                product = self._input_product(i, layers[-1][0])
            kernels, made = self._state_product(i, product.dtype, recurrent_kernels)
            of_state = tf.concat([tf.matmul(before[0], kernel) for kernel in kernels], 1) + made
            gates = product.shape[1]
            if self.attention and not i:
                seen = self._seen(image)
                context, attention = attend(of_state[:, gates:], seen.keys, seen.positions, seen.score)
                product += tf.matmul(context, seen.kernel)
            layers.append(advance(layer.cell, product, of_state[:, :gates], before))
        return self._deep_output(layers[-1][0], context, words), State(tuple(layers), attention)

    def _deep_output(self, outputs, context, words):
        """What the output layer sees; with attention, Show, Attend and Tell, eq. 7."""
        return self.output_embedding(outputs) + self.output_context(context) + words if self.attention else outputs

    def _step_through(self, packed: Packed, owner, image: Image, recurrent_kernels, seed):
        """Layer by layer, word by word -> (outputs `[M, .]`, attention `[M, P]` or None)."""
        words = drop(self.word_embedding(packed.words), self.config.embedding_dropout, seed, "words")  # [M, E]
        first = self.initial_state(image, recurrent_kernels).layers
        x, found = words, []
        for i, layer in enumerate(self.recurrent):
            if i:
                x = drop(x, self.config.output_dropout, seed, f"layer {i}")
            product = self._input_product(i, x)
            kernels, made = self._state_product(i, x.dtype, recurrent_kernels)
            seen = None if i or not self.attention else self._seen(image)
            step = functools.partial(advance, layer.cell)
            state = tuple(tf.gather(tensor, owner) for tensor in first[i])
            found.append(unroll(step, packed, state, product, made, tf.concat(kernels, 1), seen))
            x = found[-1].outputs
        return self._deep_output(x, found[0].contexts, words), found[0].weights if self.attention else None

    def _run_through(self, packed: Packed, owner, image: Image, recurrent_kernels, seed):
        """Through Keras' whole layers -> (outputs `[M, .]`, None)."""
        x: Any = self.word_embedding(packed.padded())  # [N, T, E]
        x = drop(x, self.config.embedding_dropout, seed, "words")
        states: list[Any] = [None] * len(self.recurrent)
        if self.first_states:
            states = [[tf.gather(x, owner) for x in tensors] for tensors in self.initial_state(image).layers]
        else:
            x = tf.concat([tf.gather(image.embedding, owner)[:, None], x], axis=1)  # [N, 1+T, E]
        for i, (layer, state) in enumerate(zip(self.recurrent, states, strict=True)):
            if i:
                x = drop(x, self.config.output_dropout, seed, f"layer {i}")
            if recurrent_kernels is None:
                x = layer(x, initial_state=state)
            else:
                x, _ = layer.stateless_call(*weights_with(layer, recurrent_kernels[i]), x, initial_state=state)
        return tf.gather_nd(x if self.first_states else x[:, 1:], packed.places), None

    def _recurrent_kernels(self, seed):
        """Each layer's recurrent weights with some of them dropped (Merity et al. 2017, https://arxiv.org/abs/1708.02182).

        The same ones for all words and captions of the step, so that the fused layers can be used. None: as they are.
        """
        rate = self.config.state_dropout
        if seed is None or not rate:
            return None
        kernels = [tf.convert_to_tensor(layer.cell.recurrent_kernel.value) for layer in self.recurrent]
        return [drop(kernel, rate, seed, f"recurrent {i}") for i, kernel in enumerate(kernels)]

    def _logits(self, outputs):
        """outputs `[..., U]` (`[..., E]` with attention) -> float32 `[..., V]`."""
        if self.output_embedding and not self.attention:
            outputs = self.output_embedding(outputs)
        if not self.config.tie_embeddings:
            return tf.cast(self.logits(outputs), tf.float32)
        table = tf.cast(self.word_embedding.embeddings.value, outputs.dtype)  # [V, E]
        return tf.cast(tf.tensordot(outputs, table, [[-1], [1]]), tf.float32) + self.bias.value

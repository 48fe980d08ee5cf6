"""The caption decoder: Show and Tell (Vinyals et al. 2015, https://arxiv.org/abs/1411.4555), and with attention Show,
Attend and Tell (Xu et al. 2015, https://arxiv.org/abs/1502.03044), or one that looks later (luong.py)."""

from __future__ import annotations

import functools
from typing import Any, cast

import tensorflow as tf

from trainer.model.bahdanau import BahdanauAttention, attend
from trainer.model.cells import advance, biases, input_kernels, weights_with
from trainer.model.dropout import drop
from trainer.model.layers import STATE_TENSORS, Layers
from trainer.model.packing import Packed
from trainer.model.scaling import pool
from trainer.model.state import Image, State
from trainer.model.unrolled import Seen, unroll


class Decoder(Layers):
    """An image, then word by word: `encode`, `initial_state`, `step`; `call` is all steps of given captions at once.

    The recurrent layers are Keras', of which `step` only takes the weights (see cells.py). On GPUs, where they are
    cuDNN's, `call` runs them over whole captions; elsewhere it steps over the words without their padding, which is
    faster on processors (see unrolled.py); and so it does with Bahdanau's attention, since a state then needs the
    context that the one before it asked for. Luong's is of states that are there: of all words together.

    B images, N hypotheses or captions, T words in the longest, M in all, V in the vocabulary, U units, E numbers in an
    embedding, P positions of the feature grid. Masks of dropout follow from a seed (see dropout.py); without one, there
    are none.
    """

    def call(self, inputs, seed=None):
        """(features `[B, *shape]`, Packed captions) -> (logits float32 `[M, V]` of the words that follow, attention).

        Captions of one image stand side by side, as many for each image. Attention is the weights float32 `[M, P]`, or
        None.
        """
        features, packed = inputs
        image, kernels = self.encode(features, seed), self._recurrent_kernels(seed)
        words = drop(self.word_embedding(packed.words), self.config.embedding_dropout, seed, "words")  # [M, E]
        run = self._whole_layer if self.runs_whole_layers and not self.looks_before else self._stepped_layer
        x, context, weights = words, None, None
        for i, state in enumerate(self.initial_state(image, kernels).layers):
            if i:
                x = drop(self._into_next(x, context), self.config.output_dropout, seed, f"layer {i}")
            x, *looked = run(i, packed, x, state, image, kernels)
            if self.looks_after and not i:
                looked = map(packed.gathered, self.attention(packed.spread(x), image.keys, image.positions))
            if self.attention and not i:
                context, weights = looked
        outputs = drop(self._deep_output(x, context, words), self.config.output_dropout, seed, "output")
        return self._logits(outputs), weights

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
        tensors = STATE_TENSORS[self.config.cell]
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
        if self.looks_before and not i:
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
        context, attention = None, ()
        layers: list[tuple[Any, ...]] = []
        for i, (layer, before) in enumerate(zip(self.recurrent, state.layers, strict=True)):
            if i:
                product = self._input_product(i, self._into_next(layers[-1][0], context))
            kernels, made = self._state_product(i, product.dtype, recurrent_kernels)
            of_state = tf.concat([tf.matmul(before[0], kernel) for kernel in kernels], 1) + made
            gates = product.shape[1]
            if self.looks_before and not i:
                seen = self._seen(image)
                context, attention = attend(of_state[:, gates:], seen.keys, seen.positions, seen.score)
                product += tf.matmul(context, seen.kernel)
            layers.append(advance(layer.cell, product, of_state[:, :gates], before))
            if self.looks_after and not i:
                context, attention = self.attention(layers[0][0], image.keys, image.positions)
        return self._deep_output(layers[-1][0], context, words), State(tuple(layers), attention)

    def _into_next(self, outputs, context):
        """What a layer above the first is given."""
        return tf.concat([outputs, context], 1) if self.looks_after else outputs

    def _deep_output(self, outputs, context, words):
        """What the output layer sees; with attention, Show, Attend and Tell, eq. 7."""
        return self.output_embedding(outputs) + self.output_context(context) + words if self.attention else outputs

    def _stepped_layer(self, i: int, packed: Packed, x, state, image: Image, recurrent_kernels):
        """Layer i over x `[M, .]`, word by word from the images' state -> what unroll gives."""
        product = self._input_product(i, x)
        kernels, made = self._state_product(i, x.dtype, recurrent_kernels)
        owner = packed.owner(image.embedding)
        state = tuple(tf.gather(tensor, owner) for tensor in state)
        seen = self._seen(image) if self.looks_before and not i else None
        step = functools.partial(advance, self.recurrent[i].cell)
        return unroll(step, packed, state, product, made, tf.concat(kernels, 1), seen)

    def _whole_layer(self, i: int, packed: Packed, x, state, image: Image, recurrent_kernels):
        """Layer i over x `[M, .]` by Keras' whole layer, without attention -> what unroll gives."""
        layer, x = self.recurrent[i], packed.spread(x)
        state = [tf.repeat(tensor, tf.shape(x)[0] // tf.shape(tensor)[0], axis=0) for tensor in state]
        if recurrent_kernels is None:
            x = layer(x, initial_state=state)
        else:
            x, _ = layer.stateless_call(*weights_with(layer, recurrent_kernels[i]), x, initial_state=state)
        return packed.gathered(x), (), ()

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

"""Features -> captions as one TensorFlow function: a decoder, or several of them together, with beam search."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfrecords_schema.vocabulary import END, PAD, START, UNK
from trainer.beam_search import beam_search
from trainer.checkpoints import tensors
from trainer.decoder import Decoder


class Ensemble:
    """Decoders of one vocabulary and one kind of features as one: each word's probability is the mean of theirs.

    Has the three methods of a Decoder that beam search needs; its states and images are tuples of theirs.
    """

    def __init__(self, decoders: Sequence[Decoder]):
        self.decoders = tuple(decoders)
        self.config = decoders[0].config
        self.attention = None  # positions mean different things to different decoders
        self.weights = [weight for decoder in decoders for weight in decoder.weights]

    def encode(self, features):
        """features `[B, *shape]` -> what each decoder makes of them."""
        return tuple(decoder.encode(features) for decoder in self.decoders)

    def initial_state(self, images):
        """The state of each decoder."""
        return tuple(decoder.initial_state(image) for decoder, image in zip(self.decoders, images, strict=True))

    def step(self, ids, states, images):
        """ids `[N]` -> (log of the mean probabilities `[N, V]`, new states)."""
        log_probs, after = [], []
        for decoder, state, image in zip(self.decoders, states, images, strict=True):
            logits, state = decoder.step(ids, state, image)
            log_probs.append(tf.nn.log_softmax(logits))
            after.append(state)
        return tf.reduce_logsumexp(tf.stack(log_probs), axis=0), tuple(after)


class CaptionModule(tf.Module):
    """What is exported. `weights` are its weights in the decoder's order, so that it can be built again."""

    def __init__(self, decoder: Decoder | Ensemble):
        super().__init__(name="captioner")
        self.weights = tensors(decoder.weights)
        self._decoder = decoder
        features = tf.TensorSpec([None, *decoder.config.feature_shape], tf.float32, name="features")
        scalars = {"beam_width": tf.int32, "max_length": tf.int32, "length_penalty": tf.float32}
        self.caption = tf.function(
            self._caption,
            input_signature=[features, *(tf.TensorSpec([], dtype, name=name) for name, dtype in scalars.items())],
        )

    def _caption(self, features, beam_width, max_length, length_penalty):
        """features `[B, ...]` -> ids `[B, K, T]`, log_prob `[B, K]`, length `[B, K]`; see beam_search.Hypotheses.

        With attention also `attention` `[B, K, T, P]`: where in the feature grid the model looked when it chose a word.
        `max_length` counts START and END, as in training, so that T is max_length - 1. UNK is never said.
        """
        decoder = self._decoder
        image = decoder.encode(features)
        found = beam_search(
            decoder.step,
            decoder.initial_state(image),
            tf.shape(features)[0],
            beam_width,
            max_length - 1,
            length_penalty,
            start=START,
            end=END,
            pad=PAD,
            context=image,
            forbidden=(UNK,),
            record=(lambda state: state.attention) if decoder.attention else None,
        )
        outputs = {"ids": found.ids, "log_prob": found.log_prob, "length": found.length}
        return {**outputs, "attention": found.recorded} if decoder.attention else outputs

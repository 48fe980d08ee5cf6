"""Features -> captions as TensorFlow functions: a decoder or several together, with beam search or sampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrecords_schema.vocabulary import END, PAD, START
from trainer.model.decoder import Decoder
from trainer.model.variables import tensors
from trainer.search.beam_search import beam_search
from trainer.search.constraints import Constraints
from trainer.search.diverse import diverse_beam_search
from trainer.search.given import log_probs_of
from trainer.search.hypotheses import Hypotheses, none_yet
from trainer.search.sampling import sample


class Ensemble:
    """Decoders of one vocabulary and one kind of features as one: each word's probability is the mean of theirs.

    Has the four methods of a Decoder that captions are made with; its states and images are tuples of theirs.
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

    def context(self, images):
        """What `step` reads of the images."""
        return tuple(decoder.context(image) for decoder, image in zip(self.decoders, images, strict=True))

    def step(self, ids, states, images):
        """ids `[N]` -> (log of the mean probabilities `[N, V]`, new states)."""
        log_probs, after = [], []
        for decoder, state, image in zip(self.decoders, states, images, strict=True):
            logits, state = decoder.step(ids, state, image)
            log_probs.append(tf.nn.log_softmax(logits))
            after.append(state)
        return tf.reduce_logsumexp(tf.stack(log_probs), axis=0), tuple(after)


class CaptionModule(tf.Module):
    """What is exported. `weights` are its weights in the decoder's order, so that it can be built again.

    Lengths count START and END, as in training. What is allowed is that of constraints.py: `caption` and `sample` take
    all of it, and have it off (but UNK forbidden) where it is not given.
    """

    def __init__(self, decoder: Decoder | Ensemble, ends_each: bool = False):
        """`ends_each` is beam_search's."""
        super().__init__(name="captioner")
        self._ends_each = ends_each
        self.weights = tensors(decoder.weights)
        self._decoder = decoder
        features = tf.TensorSpec([None, *decoder.config.feature_shape], tf.float32, name="features")
        uniform = tf.TensorSpec([None, None, None], tf.float32, name="uniform")
        constraints = [
            *_scalars(min_length=tf.int32, no_repeat_ngram=tf.int32, forbid_unk=tf.bool),
            tf.TensorSpec([None], tf.int32, name="forbidden"),
            tf.TensorSpec([None, None], tf.int32, name="prefix"),
        ]
        search = _scalars(beam_width=tf.int32, max_length=tf.int32, length_penalty=tf.float32)
        groups = _scalars(beam_groups=tf.int32, diversity_penalty=tf.float32)
        drawing = _scalars(temperature=tf.float32, top_p=tf.float32)
        ids = tf.TensorSpec([None, None], tf.int32, name="ids")
        self.caption = tf.function(self._caption, input_signature=[features, *search, *groups, *constraints])
        self.sample = tf.function(self._sample, input_signature=[features, uniform, *drawing, *constraints])
        self.score = tf.function(self._score, input_signature=[features, ids])

    def _caption(
        self,
        features,
        beam_width,
        max_length,
        length_penalty,
        beam_groups=1,
        diversity_penalty=0.0,
        min_length=0,
        no_repeat_ngram=0,
        forbid_unk=True,
        forbidden=(),
        prefix=((),),
    ):
        """The best captions: features `[B, ...]` -> ids `[B, K, T]`, log_prob `[B, K]`, length `[B, K]`, best first.

        See hypotheses.py, also for `word_log_prob` `[B, K, T]`, and diverse.py for groups. With attention also
        `attention` `[B, K, T, P]`: where in the feature grid the model looked when it chose a word. T is
        max_length - 1.
        """
        decoder = self._decoder
        image = decoder.encode(features)
        state, images = decoder.initial_state(image), tf.shape(features)[0]
        how = self._how(min_length, no_repeat_ngram, forbid_unk, forbidden, prefix)

        def search(width, penalty):
            context = decoder.context(image)
            sizes = (images, width, max_length - 1, length_penalty)
            return beam_search(
                decoder.step, state, *sizes, **how, context=context, penalty=penalty, ends_each=self._ends_each
            )

        recorded = how["record"](state).shape[-1] if how["record"] else None
        nothing = none_yet(images, 0, max_length - 1, PAD, recorded)
        found = diverse_beam_search(search, beam_groups, beam_width, diversity_penalty, length_penalty, nothing, END)
        return self._outputs(found)

    def _sample(
        self,
        features,
        uniform,
        temperature,
        top_p,
        min_length=0,
        no_repeat_ngram=0,
        forbid_unk=True,
        forbidden=(),
        prefix=((),),
    ):
        """Captions drawn at random, in the order drawn; the same caption may be drawn twice.

        features `[B, ...]`, uniform `[B, K, T]` of numbers from 0 to below 1 -> as `caption`; see sampling.py. T is the
        greatest length less one. `log_prob` is the model's own, whatever temperature and top_p are.
        """
        decoder = self._decoder
        image = decoder.encode(features)
        drawn = sample(
            decoder.step,
            decoder.initial_state(image),
            uniform,
            **self._how(min_length, no_repeat_ngram, forbid_unk, forbidden, prefix),
            context=decoder.context(image),
            temperature=temperature,
            top_p=top_p,
        )
        return self._outputs(drawn)

    def _score(self, features, ids):
        """Captions that are given: features `[B, ...]`, ids `[B, T]` -> `word_log_prob` `[B, T]`; see given.py."""
        decoder = self._decoder
        image = decoder.encode(features)
        state, context = decoder.initial_state(image), decoder.context(image)
        return {"word_log_prob": log_probs_of(decoder.step, state, ids, start=START, pad=PAD, context=context)}

    def _how(self, *constraints) -> dict[str, Any]:
        """What beam search and sampling have in common."""
        record = (lambda state: state.attention) if self._decoder.attention else None
        return {"start": START, "end": END, "pad": PAD, "allowed": Constraints(*constraints), "record": record}

    def _outputs(self, found: Hypotheses) -> dict[str, Any]:
        outputs = {name: getattr(found, name) for name in ("ids", "log_prob", "length", "word_log_prob")}
        return {**outputs, "attention": found.recorded} if self._decoder.attention else outputs


def _scalars(**dtypes) -> list[tf.TensorSpec]:
    return [tf.TensorSpec([], dtype, name=name) for name, dtype in dtypes.items()]

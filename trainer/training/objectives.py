"""What a decoder is trained on: cross-entropy with the captions that people wrote, then CIDEr of its own.

An objective is a function of (decoder, batch, seed, progress) that gives a Loss. Sums and not means: the gradient of
`total` over the sum of all replicas' `tokens` is the gradient of the whole batch, however it was split and padded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from tfrecords_schema.vocabulary import END, PAD, START, UNK
from trainer.data.batches import Batch
from trainer.model.decoder import Decoder
from trainer.model.dropout import fold
from trainer.model.packing import Packed, pack
from trainer.search.beam_search import beam_search
from trainer.search.constraints import Constraints, without
from trainer.search.sampling import sample

_NEVER = (PAD, START, UNK)  # not drawn


class Loss(NamedTuple):
    """Sums over the captions of one replica; float32 scalars.

    Attributes:
      total: what is minimised.
      tokens: real tokens (words and END), what every sum is divided by.
      reported: name -> (sum, what it is divided by), for people to look at.
    """

    total: Any
    tokens: Any
    reported: dict[str, tuple[Any, Any]]


def cross_entropy(decoder: Decoder, batch: Batch, seed, progress, config) -> Loss:
    """Cross-entropy per real token, in nats, with teacher forcing; `loss` is without smoothing and penalty.

    Label smoothing (https://arxiv.org/abs/1512.00567, section 7) gives a share of the probability to all words alike.
    Scheduled sampling (https://arxiv.org/abs/1506.03099) has the decoder read some of its own words; `progress`, 0 to
    1, is how far training has come, and the share rises with it. The doubly stochastic penalty (Show, Attend and
    Tell, section 4.2.1), `sum_p (1 - sum_t weight)^2` for each caption, has every position looked at. Without a seed,
    `config` is not used, and none of these are.
    """
    packed = pack(tf.reshape(batch.ids, [-1, tf.shape(batch.ids)[2]]))
    if seed is not None and config.scheduled_sampling:
        share = config.scheduled_sampling * progress
        packed = packed._replace(words=_mixed_with_own(decoder, batch.features, packed, share, seed))
    logits, attention = decoder((batch.features, packed), seed=seed)
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=packed.targets, logits=logits)  # [M]
    hits = tf.cast(tf.argmax(logits, axis=-1, output_type=packed.targets.dtype) == packed.targets, tf.float32)
    tokens = tf.cast(tf.size(packed.targets), tf.float32)
    total = tf.reduce_sum(entropy)
    reported = {"loss": (total, tokens), "accuracy": (tf.reduce_sum(hits), tokens)}
    if seed is not None and config.label_smoothing:
        uniform = tf.reduce_logsumexp(logits, axis=-1) - tf.reduce_mean(logits, axis=-1)  # against all words alike
        total += config.label_smoothing * (tf.reduce_sum(uniform) - total)
    if seed is not None and decoder.looks_before and config.attention_penalty:
        looked = tf.math.unsorted_segment_sum(attention, packed.places[:, 0], packed.counts[0])  # [captions, P]
        total += config.attention_penalty * tf.reduce_sum(tf.square(1 - looked))
    return Loss(total, tokens, reported)


def _mixed_with_own(decoder: Decoder, features, packed: Packed, share, seed):
    """The captions' words, each but START replaced with probability `share` by one that the decoder draws in its place.

    All are drawn in one pass over the captions as people wrote them (parallel scheduled sampling,
    https://arxiv.org/abs/1906.04331), so that whole layers can run.
    """
    logits, _ = decoder((features, packed), seed=None)
    drawn = tf.random.stateless_categorical(logits, 1, fold(seed, "own words"), dtype=packed.words.dtype)[:, 0]
    time = packed.places[:, 1]
    before = tf.range(tf.size(drawn)) - tf.gather(
        packed.counts, tf.maximum(time - 1, 0)
    )  # the word before of a caption
    own = tf.gather(drawn, tf.maximum(before, 0))
    replaced = (tf.random.stateless_uniform(tf.shape(own), fold(seed, "which words")) < share) & (time > 0)
    return tf.stop_gradient(tf.where(replaced, own, packed.words))


def self_critical(
    decoder: Decoder,
    batch: Batch,
    seed,
    reward: Callable,
    samples: int,
    max_steps: int,
    baseline: str = "greedy",
    share: float = 0.0,
) -> Loss:
    """Self-critical sequence training (Rennie et al. 2017, https://arxiv.org/abs/1612.00563).

    For each image, captions are drawn from the decoder; the log probability of each is raised by how much better it is
    rewarded than the decoder's greedy caption of that image, or lowered by how much worse. With the baseline "samples"
    it is compared with the mean of the other captions drawn for its image, which gives the gradient less variance (Luo
    2020, https://arxiv.org/abs/2003.09971).

    With a `share`, an image's loss is (1 - share) * the mean over its samples + share * cross-entropy of a caption that
    people wrote (Paulus et al. 2018, https://arxiv.org/abs/1705.04304, eq. 16). Nothing is dropped in either.

    Args:
      batch: without a share its ids only tell the images that fill it up.
      reward: (image int32 `[N]`, ids int32 `[N, T]`) -> float32 `[N]`; see cider.py.
      samples: captions drawn for an image; two or more for the baseline "samples".
      max_steps: T.
      share: of cross-entropy, 0 to 1.
    """
    greedy, drawn = _greedy_and_drawn(decoder, batch.features, seed, samples, max_steps)
    images = tf.concat([batch.image, tf.repeat(batch.image, samples)], axis=0)
    rewards = tf.numpy_function(reward, [images, tf.concat([greedy, drawn], axis=0)], tf.float32, stateful=False)
    count = tf.shape(batch.image)[0]
    greedy_reward, rewards = tf.repeat(rewards[:count], samples), tf.ensure_shape(rewards[count:], [None])  # [N]
    if baseline == "greedy":
        advantage = rewards - greedy_reward
    else:
        by_image = tf.reshape(rewards, [count, samples])
        others = (tf.reduce_sum(by_image, axis=1, keepdims=True) - by_image) / (samples - 1)
        advantage = tf.reshape(by_image - others, [-1])
    counted = tf.cast(tf.repeat(tf.reduce_any(batch.ids[:, :, 1:] != PAD, axis=[1, 2]), samples), tf.float32)
    advantage *= counted

    # Nothing is dropped: these are the probabilities that the captions were drawn from.
    packed = pack(tf.pad(drawn, [[0, 0], [1, 0]], constant_values=START))
    logits, _ = decoder((batch.features, packed), seed=None)
    # Of the words that can be drawn: what is taken from a bad caption would otherwise go to those that never are.
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=packed.targets, logits=without(_NEVER, logits))
    total = tf.reduce_sum(entropy * tf.gather(tf.stop_gradient(advantage), packed.caption))
    tokens = tf.reduce_sum(tf.gather(counted, packed.caption))
    drawn_count = tf.reduce_sum(counted)
    reported = {
        "reward": (tf.reduce_sum(rewards * counted), drawn_count),
        "greedy_reward": (tf.reduce_sum(greedy_reward * counted), drawn_count),
    }
    if share:
        written = cross_entropy(decoder, batch, None, 0.0, None)
        reported["loss"] = written.reported["loss"]
        total = (1 - share) * total + share * samples * written.total  # the sum over samples is `samples` times a mean
    return Loss(total, tokens, reported)


def _greedy_and_drawn(decoder: Decoder, features, seed, samples: int, max_steps: int):
    """Captions without gradients: the greedy one `[B, T]` of each image, and `samples` drawn `[B * samples, T]`."""
    image = decoder.encode(features)
    state = decoder.initial_state(image)
    size = tf.shape(features)[0]
    how: dict[str, Any] = {
        "start": START,
        "end": END,
        "pad": PAD,
        "allowed": Constraints(),
        "context": decoder.context(image),
    }
    greedy, _ = beam_search(decoder.step, state, size, 1, max_steps, 0.0, **how)
    uniform = tf.random.stateless_uniform([size, samples, max_steps], fold(seed, "captions"))
    drawn = sample(decoder.step, state, uniform, **how)
    return tf.stop_gradient(greedy.ids[:, 0]), tf.stop_gradient(tf.reshape(drawn.ids, [-1, max_steps]))

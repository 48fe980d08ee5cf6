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
    Tell, section 4.2.1), `sum_p (1 - sum_t weight)^2` for each caption, has every position looked at.
    """
    words, targets = batch.ids[:, :-1], batch.ids[:, 1:]  # [B, T]
    if seed is not None and config.scheduled_sampling:
        words = _mixed_with_own(decoder, batch.features, words, config.scheduled_sampling * progress, seed)
    logits, attention = decoder((batch.features, words), seed=seed)
    real = tf.cast(targets != PAD, tf.float32)  # [B, T]
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=logits)
    hits = tf.cast(tf.argmax(logits, axis=-1, output_type=targets.dtype) == targets, tf.float32)
    tokens = tf.reduce_sum(real)
    total = tf.reduce_sum(entropy * real)
    reported = {"loss": (total, tokens), "accuracy": (tf.reduce_sum(hits * real), tokens)}
    if seed is not None and config.label_smoothing:
        uniform = tf.reduce_logsumexp(logits, axis=-1) - tf.reduce_mean(logits, axis=-1)  # against all words alike
        total += config.label_smoothing * (tf.reduce_sum(uniform * real) - total)
    if seed is not None and attention is not None and config.attention_penalty:
        looked = tf.reduce_sum(attention * real[:, :, None], axis=1)  # [B, P]
        has_words = tf.cast(tf.reduce_any(targets != PAD, axis=1), tf.float32)[:, None]
        total += config.attention_penalty * tf.reduce_sum(tf.square(1 - looked) * has_words)
    return Loss(total, tokens, reported)


def _mixed_with_own(decoder: Decoder, features, words, share, seed):
    """Words `[B, T]`, each but START replaced with probability `share` by one that the decoder draws in its place.

    All are drawn in one pass over the captions as people wrote them (parallel scheduled sampling,
    https://arxiv.org/abs/1906.04331), so that whole layers can run.
    """
    logits, _ = decoder((features, words), seed=None)
    flat = tf.reshape(logits, [-1, tf.shape(logits)[-1]])
    drawn = tf.random.stateless_categorical(flat, 1, fold(seed, "own words"), dtype=words.dtype)
    own = tf.concat([words[:, :1], tf.reshape(drawn, tf.shape(words))[:, :-1]], axis=1)
    replaced = (tf.random.stateless_uniform(tf.shape(words), fold(seed, "which words")) < share) & (words != PAD)
    return tf.stop_gradient(tf.where(replaced & (tf.range(tf.shape(words)[1]) > 0), own, words))


def self_critical(
    decoder: Decoder, batch: Batch, seed, reward: Callable, samples: int, max_steps: int, baseline: str = "greedy"
) -> Loss:
    """Self-critical sequence training (Rennie et al. 2017, https://arxiv.org/abs/1612.00563).

    For each image, captions are drawn from the decoder; the log probability of each is raised by how much better it is
    rewarded than the decoder's greedy caption of that image, or lowered by how much worse. With the baseline "samples"
    it is compared with the mean of the other captions drawn for its image, which gives the gradient less variance (Luo
    2020, https://arxiv.org/abs/2003.09971).

    Args:
      batch: its ids are not used, but for telling the images that only fill it up.
      reward: (image int32 `[N]`, ids int32 `[N, T]`) -> float32 `[N]`; see cider.py.
      samples: captions drawn for an image; two or more for the baseline "samples".
      max_steps: T.
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
    counted = tf.cast(tf.repeat(tf.reduce_any(batch.ids[:, 1:] != PAD, axis=1), samples), tf.float32)
    advantage *= counted

    drawn = drawn[:, : tf.reduce_max(tf.math.count_nonzero(drawn != PAD, axis=1))]  # only padding is left behind it
    words = tf.concat([tf.fill([count * samples, 1], START), drawn[:, :-1]], axis=1)
    # Nothing is dropped: these are the probabilities that the captions were drawn from.
    logits, _ = decoder((tf.repeat(batch.features, samples, axis=0), words), seed=None)
    real = tf.cast(drawn != PAD, tf.float32) * counted[:, None]
    # Of the words that can be drawn: what is taken from a bad caption would otherwise go to those that never are.
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=drawn, logits=without(_NEVER, logits))
    entropy = tf.math.multiply_no_nan(entropy, real)  # PAD's is infinite
    drawn_count = tf.reduce_sum(counted)
    reported = {
        "reward": (tf.reduce_sum(rewards * counted), drawn_count),
        "greedy_reward": (tf.reduce_sum(greedy_reward * counted), drawn_count),
    }
    raised = tf.reduce_sum(entropy * tf.stop_gradient(advantage)[:, None])
    return Loss(raised, tf.reduce_sum(real), reported)


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

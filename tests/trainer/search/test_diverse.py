"""Diverse beam search over toy step functions, against the paper's algorithm in plain Python."""

import collections
import functools

import numpy as np
import pytest
import tensorflow as tf

from tests.support.steps import table_step
from trainer.search.beam_search import beam_search
from trainer.search.constraints import Constraints
from trainer.search.diverse import diverse_beam_search
from trainer.search.hypotheses import none_yet

PAD, START, END = 0, 1, 2
IDS = {"start": START, "end": END, "pad": PAD, "allowed": Constraints(forbid_unk=False)}


@functools.cache
def searching(shape, alpha, steps):
    """The search as a graph; what is searched, and how, is given to it."""
    number = tf.TensorSpec([], tf.int32)

    @tf.function(input_signature=[tf.TensorSpec(shape), number, number, tf.TensorSpec([])])
    def search(tables, groups, width, strength):
        step, state = table_step(tables)

        def one(width, penalty):
            return beam_search(step, state, shape[0], width, steps, alpha, **IDS, penalty=penalty)

        return diverse_beam_search(one, groups, width, strength, alpha, none_yet(shape[0], 0, steps, PAD, None), END)

    return search


def found(tables, groups, width, strength, alpha, steps):
    """[(ids, log probability)] of each image."""
    given = tf.constant(tables, tf.float32)
    ids, log_prob, length, each, _ = searching(tables.shape, alpha, steps)(given, groups, width, strength)
    np.testing.assert_allclose(tf.reduce_sum(each, axis=2), log_prob, rtol=1e-4)
    ids, log_prob, length = ids.numpy(), log_prob.numpy(), length.numpy()
    return [[(tuple(ids[b, k, : length[b, k]]), float(log_prob[b, k])) for k in range(width)] for b in range(len(ids))]


def by_hand(table, groups, width, strength, alpha, steps):
    """All groups go forward together, word by word, each after those before it, as the paper has it (Algorithm 1)."""
    log_probs = table - np.log(np.exp(table).sum(-1, keepdims=True))
    size = width // groups
    live = [[((), 0.0)] for _ in range(groups)]
    ended = [[] for _ in range(groups)]
    for time in range(steps):
        said = collections.Counter()
        for group in range(groups):
            grown = []
            for ids, total in live[group]:
                history = 0
                for before in (START, *ids):
                    history = (history * 7 + before) % table.shape[1]
                row = log_probs[min(time, table.shape[0] - 1), history]
                for word in range(table.shape[2]):
                    if word not in (PAD, START):
                        rank = total + row[word] - (strength * said[word] if word != END else 0)
                        grown.append((rank, (*ids, word), total + row[word]))
            grown.sort(key=lambda entry: -entry[0])
            ended[group] += [(ids, total) for _, ids, total in grown[:size] if ids[-1] == END]
            live[group] = [(ids, total) for _, ids, total in grown if ids[-1] != END][:size]
            said.update(ids[-1] for ids, _ in live[group])
    best = []
    for some, others in zip(ended, live, strict=True):
        some.sort(key=lambda entry: -entry[1] / ((5 + len(entry[0])) / 6) ** alpha)
        best += (some[:size] + others)[:size]
    return sorted(best, key=lambda e: (e[0][-1] != END, -e[1] / ((5 + len(e[0])) / 6) ** alpha))


@pytest.mark.parametrize("groups, width, strength", [(1, 3, 9.0), (2, 4, 0.7), (3, 3, 1.5), (4, 8, 0.4), (2, 2, 0.0)])
def test_equals_the_algorithm_in_plain_python(groups, width, strength):
    """Models that end late, so that no group gives up a hypothesis that still keeps others away from its words."""
    for seed in range(4):
        tables = np.random.default_rng(seed).normal(0, 1, (2, 5, 11, 9))
        tables[:, :4, :, END], tables[:, 4, :, END] = -20, 20
        for image, got in enumerate(found(tables, groups, width, strength, 0.6, 5)):
            expected = by_hand(tables[image], groups, width, strength, 0.6, 5)
            assert [ids for ids, _ in got] == [ids for ids, _ in expected]
            np.testing.assert_allclose([p for _, p in got], [p for _, p in expected], atol=1e-4)


def test_a_strong_penalty_gives_other_words_to_each_group():
    """Of four words that are nearly alike, each group takes one of its own in every place."""
    tables = np.zeros((1, 3, 1, 8))
    tables[..., 4:8] = [3.0, 2.9, 2.8, 2.7]
    tables[:, 2, :, END] = 9.0
    alike, apart = (found(tables, groups, 4, 5.0, 0.0, 3)[0] for groups in (1, 4))
    assert {ids for ids, _ in apart} == {(word, word, END) for word in range(4, 8)}
    assert len({ids[0] for ids, _ in alike}) < 4

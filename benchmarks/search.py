"""Beam search from stored features, against one image and one word at a time.

`python -m benchmarks.search --model EXPORT --data DIR`. The other way is im2txt's: a graph that gives one step's
probabilities, and everything else in Python (the heaps, the states, a sorted list of all words for each hypothesis).
"""

from __future__ import annotations

import argparse
import heapq
import math
import os
import statistics
import time

from tfrecords_schema.quiet import import_tensorflow

tf = import_tensorflow()
import numpy as np  # noqa: E402

from tfrecords_schema.manifests.model_info import MODEL_INFO, ModelInfo  # noqa: E402
from tfrecords_schema.storage import files  # noqa: E402
from tfrecords_schema.vocabulary import END, START  # noqa: E402
from trainer.data import dataset  # noqa: E402
from trainer.model.exported import load_export  # noqa: E402


def one_by_one(decoder, width: int, max_steps: int):
    """A function: features `[F]` -> (log probability, ids) of the best caption."""
    encode = tf.function(decoder.encode)
    first = tf.function(decoder.initial_state)

    @tf.function(reduce_retracing=True)
    def one_step(ids, state, image):
        logits, state = decoder.step(ids, state, image)
        return tf.nn.softmax(logits), state

    def search(feature):
        image = encode(feature[None])
        state = tf.nest.map_structure(lambda tensor: tensor.numpy()[0], first(image))
        partial, complete = [(0.0, [START], state)], []
        for _ in range(max_steps):
            ids = np.array([words[-1] for _, words, _ in partial])
            states = tf.nest.map_structure(lambda *rows: np.stack(rows), *(state for _, _, state in partial))
            probabilities, states = one_step(ids, states, image)
            probabilities, states = probabilities.numpy(), tf.nest.map_structure(lambda t: t.numpy(), states)
            candidates = []
            for place, (score, words, _) in enumerate(partial):
                ranked = sorted(enumerate(probabilities[place]), key=lambda pair: -pair[1])
                state = tf.nest.map_structure(lambda tensor, n=place: tensor[n], states)
                for word, probability in ranked[:width]:
                    if probability > 1e-12:
                        candidates.append((score + math.log(probability), [*words, word], state))
            complete += [candidate for candidate in candidates if candidate[1][-1] == END]
            complete = heapq.nlargest(width, complete, key=lambda candidate: candidate[0])
            going_on = [candidate for candidate in candidates if candidate[1][-1] != END]
            partial = heapq.nlargest(width, going_on, key=lambda candidate: candidate[0])
            if not partial or (len(complete) == width and complete[-1][0] > partial[0][0]):
                break
        score, words, _ = max(complete or partial, key=lambda candidate: candidate[0])
        return score, words[1:]

    return search


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="export directory")
    parser.add_argument("--data", required=True, help="feature directory with a val split")
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--length_penalties", type=float, nargs="+", default=[0.0, 0.7])
    parser.add_argument("--seconds", type=float, default=15.0, help="of each way in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--widths", type=int, nargs="+", default=[1, 3, 5, 10])
    args = parser.parse_args()
    directory = dataset.open_directory(args.data)
    records = dataset.images(directory, "val").take(args.batch_size)
    features = np.stack([r["image/feature"].numpy().astype(np.float32) for r in records])
    features = np.resize(features, (args.batch_size, *features.shape[1:]))
    length = directory.info.max_caption_length

    signature = tf.saved_model.load(args.model).signatures["caption"]
    info = ModelInfo.loads(files.read_text(os.path.join(args.model, MODEL_INFO)))
    decoder = load_export(args.model, info)
    by_one = one_by_one(decoder, 3, length - 1)

    def batched(width: int, penalty: float):
        found = signature(
            features=tf.constant(features),
            beam_width=tf.constant(width),
            max_length=tf.constant(length),
            length_penalty=tf.constant(penalty),
            min_length=tf.constant(0),
            no_repeat_ngram=tf.constant(0),
            forbid_unk=tf.constant(True),
            beam_groups=tf.constant(1),
            diversity_penalty=tf.constant(0.0),
            forbidden=tf.constant([], tf.int32),
            prefix=tf.zeros([len(features), 0], tf.int32),
        )
        return {name: tensor.numpy() for name, tensor in found.items()}

    def rate(call, captions: int) -> float:
        done, begun = 0, time.monotonic()
        while time.monotonic() - begun < args.seconds:
            call(done)
            done += captions
        return done / (time.monotonic() - begun)

    ways = [(width, penalty) for penalty in args.length_penalties for width in args.widths]
    for way in ways:
        batched(*way)
    same = np.mean([by_one(features[i])[0] <= batched(3, 0.0)["log_prob"][i, 0] + 1e-3 for i in range(8)])
    print(f"batched beams are at least as probable as those one by one: {same:.0%} of 8 images\n")
    found = []
    for _ in range(args.rounds):
        row = {way: rate(lambda _, way=way: batched(*way), args.batch_size) for way in ways}
        row["one by one"] = rate(lambda n: by_one(features[n % len(features)]), 1)
        found.append(row)

    def median(value) -> float:
        return statistics.median(map(value, found))

    print("| what | captions/s | over the first row |\n|---|---|---|")
    for way in ways:
        per_s, times = median(lambda r, way=way: r[way]), median(lambda r, way=way: r[ways[0]] / r[way])
        print(f"| width {way[0]}, length penalty {way[1]:g} | {per_s:,.0f} | {times:.2f} times its time |")
    print(f"| one image and one word at a time, width 3 | {median(lambda r: r['one by one']):,.1f} | |")
    over = [median(lambda r, p=penalty: r[3, p] / r["one by one"]) for penalty in args.length_penalties]
    print(f"| **width 3 over it** | **{' and '.join(f'{times:.0f}' for times in over)}** | |")


if __name__ == "__main__":
    main()

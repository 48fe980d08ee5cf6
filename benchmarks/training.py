"""Training against a loop as the tutorials write it, against the machine, and with attention.

`python -m benchmarks.training --data DIR --grid GRID`, of the same images. All ways take turns in one process, on the
same captions and the same sizes of the decoder. What counts are real tokens, words and END: padding teaches nothing.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time

from tfrecords_schema.quiet import import_tensorflow

tf = import_tensorflow()
import keras  # noqa: E402
import numpy as np  # noqa: E402

from tfrecords_schema.vocabulary import PAD  # noqa: E402
from trainer.config import DecoderSettings, TrainConfig  # noqa: E402
from trainer.data import dataset  # noqa: E402
from trainer.model.decoder import Decoder  # noqa: E402
from trainer.training import phases  # noqa: E402
from trainer.training.run import decoder_config  # noqa: E402
from trainer.training.update import make_update  # noqa: E402

_PEAK_SIZE = 2048


def tutorial(directory, batch_size: int, units: int, embedding_dim: int):
    """A function: seconds -> real tokens a second. One record a caption, padded to the longest, LSTM word by word."""
    vocabulary, length = len(directory.vocabulary), directory.info.max_caption_length
    embedding = keras.layers.Embedding(vocabulary, embedding_dim)
    image_embedding = keras.layers.Dense(embedding_dim)
    lstm = keras.layers.LSTM(units, return_sequences=True, return_state=True)
    dropout, logits = keras.layers.Dropout(0.5), keras.layers.Dense(vocabulary)
    layers = [embedding, image_embedding, lstm, logits]
    optimizer = keras.optimizers.Adam()
    entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")

    @tf.function
    def train_step(features, ids):
        with tf.GradientTape() as tape:
            _, *state = lstm(image_embedding(features)[:, None])
            loss = 0.0
            for time_step in range(length - 1):
                word = dropout(embedding(ids[:, time_step])[:, None], training=True)
                output, *state = lstm(word, initial_state=state)
                predicted = logits(dropout(output[:, 0], training=True))
                target = ids[:, time_step + 1]
                loss += tf.reduce_mean(entropy(target, predicted) * tf.cast(target != PAD, tf.float32))
        variables = [variable for layer in layers for variable in layer.trainable_variables]
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    pairs = (
        dataset.images(directory, "train")
        .map(lambda r: (tf.cast(r["image/feature"], tf.float32), r["caption/ids"]))
        .cache()
        .flat_map(lambda f, ids: tf.data.Dataset.from_tensor_slices(ids).map(lambda caption: (f, caption)))
        .shuffle(20_000)
        .batch(batch_size, drop_remainder=True)
        .repeat()
        .prefetch(tf.data.AUTOTUNE)
    )
    batches = iter(pairs)
    train_step(*next(batches))  # traced

    def run(seconds: float) -> float:
        tokens, begun = 0, time.monotonic()
        while time.monotonic() - begun < seconds:
            features, ids = next(batches)
            train_step(features, ids).numpy()
            tokens += np.count_nonzero(ids[:, 1:].numpy() != PAD)
        return tokens / (time.monotonic() - begun)

    return run


def ours(directory, batch_size: int, units: int, embedding_dim: int, precision: str = "float32", **settings):
    """A function: seconds -> (real tokens a second, share of the time spent waiting for data, share of real tokens)."""
    config = TrainConfig(batch_size=batch_size)
    strategy = tf.distribute.MirroredStrategy()
    with strategy.scope():
        sizes = {"units": units, "embedding_dim": embedding_dim, "attention_units": units, **settings}
        decoder = Decoder(decoder_config(directory, DecoderSettings(**sizes)), precision)
        decoder.build()
        phase = phases.cross_entropy(directory, config, 1, decoder)
        phase.optimizer.build(decoder.trainable_variables)
    like = phase.batches.dataset(0)
    update = make_update(decoder, phase.optimizer, phase.objective, strategy, like, seed=0, clip_norm=5.0)

    def epochs():
        epoch = 0
        while True:
            yield from strategy.experimental_distribute_dataset(phase.batches.dataset(epoch))
            epoch += 1

    batches = epochs()
    step = functools.partial(update, next(batches))
    step(tf.constant(0, tf.int64), tf.constant(0.0))  # traced

    def run(seconds: float) -> tuple[float, float, float]:
        tokens = waited = size = number = 0
        begun = time.monotonic()
        while time.monotonic() - begun < seconds:
            asked = time.monotonic()
            batch = next(batches)
            waited += time.monotonic() - asked
            number += 1
            _, real, _ = update(batch, tf.constant(number, tf.int64), tf.constant(0.0))
            tokens += float(real)
            size += tf.size(batch.ids[..., 1:]).numpy()
        passed = time.monotonic() - begun
        return tokens / passed, waited / passed, tokens / size

    return run


def peak() -> float:
    """float32 operations a second of one large matrix product, 2 n^3 of them."""
    matrix = tf.random.normal([_PEAK_SIZE, _PEAK_SIZE])
    multiply = tf.function(lambda: tf.matmul(matrix, matrix))
    multiply()
    begun = time.monotonic()
    for _ in range(5):
        multiply().numpy()
    return 5 * 2 * _PEAK_SIZE**3 / (time.monotonic() - begun)


def operations(vocabulary: int, units: int, embedding_dim: int) -> int:
    """Multiplications and additions a token of an LSTM and its output layer, forward (1) and backward (2)."""
    return 3 * 2 * (4 * units * (units + embedding_dim) + units * vocabulary)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="feature directory, pooled features")
    parser.add_argument("--grid", help="feature directory with a feature grid, for a row with attention")
    parser.add_argument("--precision", default="float32", help="of ours: float32 or mixed_bfloat16")
    parser.add_argument("--units", type=int, default=512)
    parser.add_argument("--embedding_dim", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each way in each round")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    directory = dataset.open_directory(args.data)
    sizes = (args.units, args.embedding_dim)
    tutorials = {size: tutorial(directory, size, *sizes) for size in (64, 128)}
    run = ours(directory, 128, *sizes, args.precision)
    attending = {}
    if args.grid:
        grid = dataset.open_directory(args.grid)
        attending = {kind: ours(grid, 128, *sizes, args.precision, attention=kind) for kind in ("luong", "bahdanau")}
    found = []
    for _ in range(args.rounds):
        row = {f"tutorial {size}": way(args.seconds) for size, way in tutorials.items()}
        row["ours"], row["waited"], row["real"] = run(args.seconds)
        for kind, way in attending.items():
            row[kind], row[f"{kind} waited"], _ = way(args.seconds)
        row["peak"] = peak()
        found.append(row)

    def median(value) -> float:
        return statistics.median(map(value, found))

    needed = operations(len(directory.vocabulary), *sizes)
    print(f"| what | real tokens/s |\n|---|---|\n| ours, batch 128 | {median(lambda r: r['ours']):,.0f} |")
    for kind in attending:
        print(f"| ours with `--attention {kind}` over a grid | {median(lambda r, k=kind: r[k]):,.0f} |")
        ratio = median(lambda r, k=kind: r["ours"] / r[k])
        print(f"| **without attention over with it** (median of the rounds' ratios) | **{ratio:.2f}** |")
        print(f"| share of the time it waits for data | {median(lambda r, k=kind: r[f'{k} waited']):.3f} |")
    for size in tutorials:
        print(f"| LSTM called word by word, batch {size} | {median(lambda r, n=size: r[f'tutorial {n}']):,.0f} |")
    for size in tutorials:
        ratio = median(lambda r, n=size: r["ours"] / r[f"tutorial {n}"])
        print(f"| **ours over it, batch {size}** (median of the rounds' ratios) | **{ratio:.1f}** |")
    print(f"| matrix-multiply peak | {median(lambda r: r['peak']) / 1e9:,.0f} GFLOP/s |")
    print(
        f"| share of the peak that ours uses ({needed / 1e6:.1f} MFLOP a token) | "
        f"{median(lambda r: r['ours'] * needed / r['peak']):.2f} |"
    )
    print(f"| share of real tokens in ours | {median(lambda r: r['real']):.3f} |")
    print(f"| share of the time ours waits for data | {median(lambda r: r['waited']):.3f} |")


if __name__ == "__main__":
    main()

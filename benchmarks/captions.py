"""Images/s of captioning, over the feature pipeline, the bare network, and the ways of im2txt and of the tutorials.

`python -m benchmarks.captions --model EXPORT --images DIR --weights FILE`. All take turns in each round, on the same
photographs, weights and machine. The other two ways run in processes of their own with TensorFlow's own threads:

- im2txt's: one image at a time, and for it one word at a time, with words and states through Python, beam width 3;
- the tutorials': `model.predict` for an image, then `model.predict` of the whole sequence again for each word, greedy.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import dataclasses
import io
import itertools
import multiprocessing
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np

from benchmarks.features import Turns, bare_rate, load_photos, one_at_a_time, run_quietly, write_coco
from tests.support import commands

WAYS = {"im2txt": 60, "tutorials": 20}  # images in a turn


def open_way(way: str, args: argparse.Namespace) -> Callable[[bytes], str]:
    """A function from the bytes of a photograph to its caption."""
    from tfrecords_schema.quiet import import_tensorflow

    tf = import_tensorflow()
    from benchmarks.search import one_by_one
    from pipelines.captions import exports
    from pipelines.vision import images
    from tfrecords_schema.networks.registry import find_network
    from tfrecords_schema.vocabulary import END, PAD, START, UNK
    from trainer.model.exported import load_export

    info, vocabulary = exports.open_model(args.model)
    decoder = load_export(args.model, info)
    length = info.max_caption_length
    network = find_network("inception_v3")
    inception = network.build(None if args.weights == "random" else args.weights)

    def pixels(data: bytes) -> np.ndarray:
        return network.preprocess(images.decode(data, network.size).rgb[None].astype(np.float32))

    if way == "im2txt":
        forward = tf.function(lambda batch: inception(batch, training=False))
        search = one_by_one(decoder, 3, length - 1)
        return lambda data: vocabulary.decode(search(forward(pixels(data)).numpy()[0])[1])

    class Logits(tf.keras.Model):
        """What a tutorial's model gives, and nothing else."""

        def call(self, inputs):
            return decoder(inputs)[0]

    sequence = Logits()

    def caption(data: bytes) -> str:
        feature = inception.predict(pixels(data), verbose=0)
        ids = [START]
        while len(ids) < length and ids[-1] != END:
            padded = np.array([ids + [PAD] * (length - len(ids))], np.int32)
            logits = sequence.predict((feature, padded[:, :-1]), verbose=0)[0, len(ids) - 1]
            logits[[PAD, START, UNK]] = -np.inf
            ids.append(int(logits.argmax()))
        return vocabulary.decode(ids)

    return caption


def fill_vocabulary(model: str, size: int, directory: str) -> str:
    """Writes the same model with words that it never says, up to `size`; returns its directory.

    im2txt sorts all words for each hypothesis, so its cost grows with them, and a model of a few thousand photographs
    has few. The captions stay the same.
    """
    from pipelines.captions import exports
    from tfrecords_schema.vocabulary import Vocabulary
    from trainer.config import DecoderConfig
    from trainer.exporting import saved_model
    from trainer.model.decoder import Decoder
    from trainer.model.exported import load_export

    info, vocabulary = exports.open_model(model)
    filler = tuple(f"never{number}" for number in range(size - len(vocabulary)))
    words = Vocabulary(vocabulary.words + filler, vocabulary.counts + (0,) * len(filler))
    config = {**info.decoder, "vocabulary_size": size}
    decoder = Decoder(DecoderConfig(**config))
    decoder.build()
    for mine, theirs in zip(decoder.weights, load_export(model, info).weights, strict=True):
        missing = [(0, wanted - found) for wanted, found in zip(mine.shape, theirs.shape, strict=True)]
        never = -30.0 if len(mine.shape) == 1 and missing[0][1] else 0.0  # the bias of the words' logits
        mine.assign(np.pad(theirs.numpy(), missing, constant_values=never))
    saved_model.write(
        decoder, words, dataclasses.replace(info, decoder=config, vocabulary_digest=words.digest), directory
    )
    return directory


def serve(way: str, args: argparse.Namespace) -> None:
    """The other process: captions some photographs whenever a line comes in, and tells how many a second."""
    caption = open_way(way, args)
    photos = itertools.cycle(load_photos(args.images))
    caption(next(photos))  # traces
    print("loaded", flush=True)
    for _ in sys.stdin:
        begun = time.perf_counter()
        for data in itertools.islice(photos, WAYS[way]):
            caption(data)
        print(WAYS[way] / (time.perf_counter() - begun), flush=True)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", required=True, help="export directory of a model for inception_v3's pooled features")
    p.add_argument("--images", type=pathlib.Path, help="directory of JPEGs to use instead of drawn ones")
    p.add_argument("--weights", required=True, help="those of the model's features")
    p.add_argument("--count", type=int, default=800, help="images in a pipeline run (default 800)")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--vocabulary", type=int, help="fill the vocabulary up to so many words, which are never said")
    p.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.way:
        serve(args.way, args)
        return
    from pipelines.vision import extractors

    argv = sys.argv[1:]
    if args.vocabulary:
        # Elsewhere: TensorFlow's threads are set in this process, before its first use, by the pipelines themselves.
        with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            made = pool.submit(fill_vocabulary, args.model, args.vocabulary, tempfile.mkdtemp() + "/export")
        args.model = made.result()
        argv += ["--model", args.model]
    others = {"bare, one at a time": one_at_a_time(args.weights, 16)}
    others |= {way: Turns("benchmarks.captions", *argv, "--way", way) for way in WAYS}
    extractor = extractors.Extractor("inception_v3", args.weights, 16).load()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        coco = write_coco(pathlib.Path(scratch) / "coco", args.count, load_photos(args.images))
        for number in range(args.rounds):
            row = {"bare": bare_rate(extractor, 10, extractor.in_flight)}
            report = run_quietly(output=f"{scratch}/features-{number}", weights=args.weights, **coco)
            row["features"] = report["images_per_second_per_worker"]
            with contextlib.redirect_stdout(io.StringIO()):
                flags = {"images": coco["train_images"], "model": args.model, "weights": args.weights}
                report = commands.caption(output=f"{scratch}/captions-{number}", beam_width=3, **flags)
            row["captions"] = report["images_per_second_per_worker"]
            row["bare"] = statistics.mean([row["bare"], bare_rate(extractor, 10, extractor.in_flight)])
            row |= {way: other.measure() for way, other in others.items()}
            print(f"round {number + 1}: " + ", ".join(f"{k} {v:.2f}" for k, v in row.items()), flush=True)
            rows.append(row)
    for other in others.values():
        other.close()
    median = lambda value: statistics.median(map(value, rows))  # noqa: E731
    names = {
        "bare, one at a time": "bare forward pass, one at a time, all cores for each operation",
        "bare": f"bare forward pass, {extractor.in_flight} at a time",
        "features": "feature pipeline",
        "captions": "**captioning, beam width 3**",
        "im2txt": "im2txt's way: an image and a word at a time, beam width 3",
        "tutorials": "the tutorials' way: `predict`, whole sequence at each word, greedy",
    }
    print(f"\n{args.count} JPEGs, batch 16, medians of {args.rounds} rounds\n")
    print("| what | images/s | captioning over it |\n|---|---|---|")
    for key, name in names.items():
        ratio = "" if key == "captions" else f"**{median(lambda r, k=key: r['captions'] / r[k]):.2f}**"
        print(f"| {name} | {median(lambda r, k=key: r[k]):.1f} | {ratio} |")
    stages = ", ".join(f"{k} {1000 * v / args.count:.1f}" for k, v in report["stage_seconds"].items())
    print(f"\nThreads' time, ms an image: {stages}")


if __name__ == "__main__":
    main()

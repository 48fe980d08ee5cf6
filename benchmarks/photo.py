"""One photo, captioned by a command that then ends, against a plain TensorFlow script: `python -m benchmarks.photo`.

Every run is a process of its own, in turns: imports, both models, one photo, its captions on the screen. The script
loads the same network of keras.applications with the same weights, and the same exported decoder. Memory is the
kernel's own figure, the largest resident set that the process ever had.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import shlex
import statistics
import subprocess
import sys
import tempfile

from benchmarks.support.seeded import write_weights
from benchmarks.support.watching import Watched, watch
from scripts import scenes

# As somebody writes it who has an export and reads the README: nothing of ours is imported.
_PLAIN = """
import sys
import keras
import numpy as np
import tensorflow as tf

network, weights, export, photo = sys.argv[1:]
if network == "vgg16":
    whole = keras.applications.VGG16(weights=weights)
    model, size = keras.Model(whole.inputs, whole.get_layer("fc2").output), 224
    preprocess = keras.applications.vgg16.preprocess_input
else:
    model, size = keras.applications.InceptionV3(weights=weights, include_top=False, pooling="avg"), 299
    preprocess = keras.applications.inception_v3.preprocess_input
caption = tf.saved_model.load(export).signatures["caption"]
words = [line.rsplit(" ", 1)[0] for line in open(f"{export}/vocabulary.txt")]
pixels = np.asarray(keras.utils.load_img(photo, target_size=(size, size), interpolation="bilinear"), np.float32)
found = caption(
    features=model(preprocess(pixels[None]), training=False),
    beam_width=tf.constant(3),
    max_length=tf.constant(25),
    length_penalty=tf.constant(0.7),
    beam_groups=tf.constant(1),
    diversity_penalty=tf.constant(0.0),
    min_length=tf.constant(3),
    no_repeat_ngram=tf.constant(0),
    forbid_unk=tf.constant(True),
    forbidden=tf.constant([], tf.int32),
    prefix=tf.zeros([1, 0], tf.int32),
)
for ids, log_prob in zip(found["ids"][0].numpy(), found["log_prob"][0].numpy()):
    print(" ".join(words[i] for i in ids if i > 3), np.exp(log_prob))
"""
_CALL = """
import sys
import pipelines
for caption in pipelines.load(sys.argv[1])(sys.argv[2]):
    print(caption.text, caption.log_prob)
"""


def make_export(network: str, weights: str, scratch: pathlib.Path) -> str:
    """A decoder of the trainer's default size for features of this network, trained for an epoch on drawn scenes."""
    scenes.write_coco(scratch / "coco", train=24, val=8)
    commands = (
        f"pipelines.features --coco_dir {scratch}/coco --extractor {network} --weights {weights} "
        f"--min_word_count 1 --output {scratch}/features",
        f"trainer.task --data {scratch}/features --job_dir {scratch}/job --epochs 1",
    )
    for one in commands:
        subprocess.run([sys.executable, "-m", *shlex.split(one)], check=True, stdout=subprocess.DEVNULL)
    return f"{scratch}/job/export"


def main() -> None:
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("--network", choices=("inception_v3", "vgg16"), default="inception_v3")
    p.add_argument("--weights", help="a Keras .h5 file; by default seeded ones are written to one")
    p.add_argument("--model", help="an export for features of this network; by default one is trained, in a minute")
    p.add_argument("--photo", help="by default a drawn one")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--with_output", action="store_true", help="also our command with --output, which is for many")
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = pathlib.Path(name)
        weights = args.weights or f"{scratch}/seeded.weights.h5"
        if not (args.weights or args.model):
            write_weights(args.network, weights)
        export = args.model or make_export(args.network, weights, scratch)
        # Those that the export carries, so that both load one file.
        carried = json.loads(pathlib.Path(export, "model_info.json").read_text())["extractor"]
        if not args.photo:
            scenes.write_images(scratch / "photos", 1, seed=1, first_id=1)
        photo = args.photo or str(next((scratch / "photos").iterdir()))
        python, command = sys.executable, [sys.executable, "-m", "pipelines.caption"]
        ways = {
            "plain script": [python, "-c", _PLAIN, args.network, f"{export}/{carried}", export, photo],
            "**`pipelines.caption PHOTO`**": [*command, photo, "--model", export],
            "**`pipelines.load(…)(PHOTO)`**": [python, "-c", _CALL, export, photo],
        }
        if args.with_output:
            output = ["--output", f"{scratch}/table", "--overwrite"]
            ways["`pipelines.caption --output`"] = [*command, "--images", photo, "--model", export, *output]
        found: dict[str, list[Watched]] = {way: [] for way in ways}
        for number in range(args.rounds):
            for way, arguments in ways.items():
                found[way].append(watch(arguments, {"TF_CPP_MIN_LOG_LEVEL": "3"}))
                if found[way][-1].status:
                    sys.exit(f"{way}: {found[way][-1].tail}")
            print(f"round {number + 1}", file=sys.stderr, flush=True)
    plain = found["plain script"]
    print(f"\n{args.network}, medians of {args.rounds} rounds; in brackets over the plain script\n")
    print("| way | wall | CPU | peak memory |\n|---|---|---|---|")
    for way, runs in found.items():
        cells = []
        for key, unit, digits in (("seconds", "s", 1), ("cpu_seconds", "s", 1), ("root_mb", "MB", 0)):
            each = [getattr(one, key) for one in runs]
            ratio = statistics.median(a / getattr(b, key) for a, b in zip(each, plain, strict=True))
            cells.append(f"{statistics.median(each):,.{digits}f} {unit} ({ratio:.2f})")
        print(f"| {way} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

"""The whole path on drawn scenes: `make demo`. Runs the same commands a user would, and says how good the captions are.

1. draws a COCO-layout set and images that training never sees, 2. pipelines.features, 3. trainer.task,
4. pipelines.caption on the unseen images, 5. a table, the share of right captions, and a picture.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import pathlib
import shlex
import shutil
import subprocess
import sys
import time

from pipelines.pictures import choice
from scripts import scenes
from tfrecords_schema.errors import InputError
from tfrecords_schema.networks import registry

_UNSEEN_SEED = 999
_UNSEEN_FIRST_ID = 500_001
_ROWS_SHOWN = 12


def main() -> None:
    """Exits with 0 if at least `--min_right` of the unseen images got a right caption."""
    p = argparse.ArgumentParser(prog="python -m scripts.demo", description=__doc__.splitlines()[0])
    p.add_argument("--output", type=pathlib.Path, default=pathlib.Path("demo"), help="directory, made anew")
    p.add_argument("--train", type=int, default=1500, help="training images")
    p.add_argument("--val", type=int, default=100, help="validation images")
    p.add_argument("--unseen", type=int, default=100, help="images to caption")
    p.add_argument("--epochs", type=int, default=8)
    p.add_argument("--min_right", type=float, default=0.9, help="fail below this share of right captions")
    args = p.parse_args()
    logging.basicConfig(level=logging.ERROR)  # Beam warns of clients for Google's clouds that are not installed
    started = time.monotonic()
    shutil.rmtree(args.output, ignore_errors=True)
    weights = _weights()

    coco, features, job, captions = (args.output / name for name in ("coco", "features", "train", "captions"))
    print(f"drawing {args.train} + {args.val} captioned scenes, and {args.unseen} that training never sees", flush=True)
    scenes.write_coco(coco, args.train, args.val)
    _write_csv(coco, args.output / "captions.csv")
    truth = scenes.write_images(args.output / "unseen", args.unseen, _UNSEEN_SEED, first_id=_UNSEEN_FIRST_ID)

    _command("pipelines.features", f"--coco_dir {coco} --output {features} --weights {weights}")
    _command(
        "trainer.task",
        f"--data {features} --job_dir {job} --epochs {args.epochs} --units 256 --embedding_dim 256 "
        "--embedding_dropout 0.3 --output_dropout 0.3 --learning_rate 0.002 --feature_scaling whiten "
        "--monitor val_loss --metrics_every 4",
    )
    _command("pipelines.caption", f"--images '{args.output}/unseen/*.jpg' --model {job}/export --output {captions}")

    rows = sorted(choice.read_rows(str(captions)), key=lambda row: row["image_id"])
    print(f"\n{'image':<18}{'log probability':>16}  caption")
    for row in rows[:_ROWS_SHOWN]:
        print(f"{row['image_id'] + '.jpg':<18}{row['log_prob']:>16.2f}  {row['caption']}")
    print()
    _command(
        "pipelines.gallery",
        f"--captions {captions} --output {args.output}/gallery.html --contact_sheet {args.output}/gallery.png",
    )

    right = sum(truth[f"{row['image_id']}.jpg"].named_in(row["caption"]) for row in rows)
    share = right / args.unseen
    result = {"right": right, "unseen": args.unseen, "share": share, "seconds": time.monotonic() - started}
    (args.output / "result.json").write_text(json.dumps(result) + "\n")
    print(f"right size, colour and shape: {right} of {args.unseen} unseen images ({share:.0%})")
    print(f"look at {args.output}/gallery.html; {captions} holds the table; all in {result['seconds']:.0f} s")
    if share < args.min_right:
        sys.exit(f"error: {share:.0%} right captions, expected at least {args.min_right:.0%}")


def _write_csv(coco: pathlib.Path, path: pathlib.Path) -> None:
    """The same captions as a table, as people have them of their own photographs."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "caption", "split"])
        for split in ("train", "val"):
            data = json.loads((coco / f"annotations/captions_{split}2017.json").read_text())
            names = {image["id"]: f"coco/{split}2017/{image['file_name']}" for image in data["images"]}
            rows.writerows([names[said["image_id"]], said["caption"], split] for said in data["annotations"])


def _weights() -> str:
    """ImageNet weights if they are cached or can be downloaded, else seeded random ones, said in one line."""
    try:
        registry.weights_file("inception_v3", "imagenet")
    except InputError:
        print("weights: ImageNet's can not be had here, so seeded random ones are used; they tell drawn scenes apart")
        return "random"
    return "imagenet"


def _command(module: str, flags: str) -> None:
    """Runs one of our commands as a user would, with what it prints."""
    print(f"\n$ python -m {module} {flags}", flush=True)
    code = subprocess.run([sys.executable, "-m", module, *shlex.split(flags)]).returncode
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()

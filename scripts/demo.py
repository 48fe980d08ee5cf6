"""The whole path on drawn scenes: `make demo`. Runs the same commands a user would, and says how good the captions are.

1. draws a COCO-layout set and images that training never sees, 2. pipelines.features, 3. trainer.task,
4. pipelines.caption on the unseen images, 5. a table, the share of right captions, and a picture.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import logging
import pathlib
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence

from scripts import scenes
from tfrecords_schema import command_line
from tfrecords_schema.command import Settings, setting
from tfrecords_schema.errors import InputError, told_in_one_line
from tfrecords_schema.networks import registry

_UNSEEN_SEED = 999
_UNSEEN_FIRST_ID = 500_001
_ROWS_SHOWN = 12


ABOUT = {
    "prog": "python -m scripts.demo",
    "usage": "%(prog)s [flags]",
    "description": "Run the whole path on drawn scenes: features, training, captions of images that training never "
    "saw, and a gallery.",
    "examples": """
        python -m scripts.demo
        python -m scripts.demo --output my-demo --train 300 --epochs 2 --min_right 0
    """,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoConfig(Settings):
    """The whole of `python -m scripts.demo`."""

    output: str = setting("directory to write; deleted first if it exists", "demo", metavar="DIR", writes="folder")
    train: int = setting("number of training images to draw", 1500, least=1)
    val: int = setting("number of validation images to draw", 100, least=1)
    unseen: int = setting("number of images to draw that training never sees, and to caption", 100, least=1)
    epochs: int = setting("epochs of training", 8, least=1)
    min_right: float = setting("share of right captions below which the demo fails", 0.9, least=0, most=1)


def main(argv: Sequence[str] | None = None) -> None:
    """Exits with 0 if at least `--min_right` of the unseen images got a right caption."""
    with told_in_one_line():
        config = command_line.parse(DemoConfig, argv, **ABOUT)
    from pipelines.pictures import choice

    output = pathlib.Path(config.output)
    logging.basicConfig(level=logging.ERROR)  # Beam warns of clients for Google's clouds that are not installed
    started = time.monotonic()
    shutil.rmtree(output, ignore_errors=True)
    weights = _weights()

    coco, features, job, captions = (output / name for name in ("coco", "features", "train", "captions"))
    print(
        f"drawing {config.train} + {config.val} captioned scenes, and {config.unseen} that training never sees",
        flush=True,
    )
    scenes.write_coco(coco, config.train, config.val)
    _write_csv(coco, output / "captions.csv")
    truth = scenes.write_images(output / "unseen", config.unseen, _UNSEEN_SEED, first_id=_UNSEEN_FIRST_ID)

    _command("pipelines.features", f"--coco_dir {coco} --output {features} --weights {weights}")
    _command(
        "trainer.task",
        f"--data {features} --job_dir {job} --epochs {config.epochs} --units 256 --embedding_dim 256 "
        "--embedding_dropout 0.3 --output_dropout 0.3 --learning_rate 0.002 --feature_scaling whiten "
        "--monitor val_loss --metrics_every 4",
    )
    _command("pipelines.caption", f"--images '{output}/unseen/*.jpg' --model {job}/export --output {captions}")

    rows = sorted(choice.read_rows(str(captions)), key=lambda row: row["image_id"])
    print(f"\n{'image':<18}{'log probability':>16}  caption")
    for row in rows[:_ROWS_SHOWN]:
        print(f"{row['image_id'] + '.jpg':<18}{row['log_prob']:>16.2f}  {row['caption']}")
    print()
    _command(
        "pipelines.gallery",
        f"--captions {captions} --output {output}/gallery.html --contact_sheet {output}/gallery.png",
    )

    right = sum(truth[f"{row['image_id']}.jpg"].named_in(row["caption"]) for row in rows)
    share = right / config.unseen
    result = {"right": right, "unseen": config.unseen, "share": share, "seconds": time.monotonic() - started}
    (output / "result.json").write_text(json.dumps(result) + "\n")
    print(f"right size, colour and shape: {right} of {config.unseen} unseen images ({share:.0%})")
    print(f"look at {output}/gallery.html; {captions} holds the table; all in {result['seconds']:.0f} s")
    if share < config.min_right:
        sys.exit(f"error: {share:.0%} right captions, expected at least {config.min_right:.0%}")


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
        print(
            "weights: ImageNet's cannot be downloaded here; seeded random ones are used, which are enough for drawn "
            "scenes"
        )
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

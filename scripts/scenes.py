"""Draws captioned scenes in COCO's layout: the data of the demo and of the tests. Everything follows from the seed.

A scene is one object of a size, a colour and a shape on a coloured ground; its five captions say so in varied words.
"""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import random

from PIL import Image, ImageDraw

SIZES = {"small": 0.16, "large": 0.38}  # radius over the picture's shorter side
COLOURS = {
    "red": (214, 40, 40),
    "green": (42, 157, 68),
    "blue": (38, 84, 214),
    "yellow": (244, 211, 45),
    "purple": (128, 48, 160),
    "white": (245, 245, 245),
    "black": (20, 20, 20),
}
SHAPES = ("circle", "square", "triangle", "cross")
GROUNDS = {"grey": (128, 128, 128), "pink": (240, 170, 190), "brown": (120, 80, 50), "teal": (90, 180, 180)}

_TEMPLATES = (
    "A {size} {colour} {shape} on a {ground} ground.",
    "There is a {size} {colour} {shape} in front of a {ground} background.",
    "A picture of a {size} {colour} {shape} on {ground}.",
    "The {shape} is {size} and {colour}, the ground is {ground}.",
    "One {size}, {colour} {shape} lies on a {ground} floor.",
    "A {colour} {shape}, {size}, against a {ground} wall.",
    "We see a {size} {colour} {shape} on a plain {ground} surface.",
)


@dataclasses.dataclass(frozen=True)
class Scene:
    """What is to be seen."""

    size: str
    colour: str
    shape: str
    ground: str

    def captions(self, rng: random.Random, count: int = 5) -> list[str]:
        """`count` different sentences."""
        return [template.format(**dataclasses.asdict(self)) for template in rng.sample(_TEMPLATES, count)]

    def named_in(self, caption: str) -> bool:
        """Whether a caption names the right size, colour and shape, and no other."""
        words = set(caption.lower().replace(",", " ").replace(".", " ").split())
        return (
            words & set(SIZES) == {self.size}
            and words & set(COLOURS) == {self.colour}
            and words & set(SHAPES) == {self.shape}
        )

    def draw(self, rng: random.Random, width: int, height: int) -> Image.Image:
        """A picture of it: place, turn and shade vary a little."""
        scale = 2  # drawn larger, then reduced, for smooth edges
        w, h = width * scale, height * scale
        image = Image.new("RGB", (w, h), _shaded(GROUNDS[self.ground], rng))
        radius = SIZES[self.size] * rng.uniform(0.9, 1.1) * min(w, h)
        cx, cy = rng.uniform(1.1 * radius, w - 1.1 * radius), rng.uniform(1.1 * radius, h - 1.1 * radius)
        colour = _shaded(COLOURS[self.colour], rng)
        draw = ImageDraw.Draw(image)
        if self.shape == "circle":
            draw.ellipse([cx - radius, cy - radius, cx + radius, cy + radius], colour)
        else:
            turn = rng.uniform(-0.2, 0.2)
            outline = [(radius * r, angle + turn) for r, angle in _OUTLINES[self.shape]]
            draw.polygon([(cx + r * math.sin(angle), cy - r * math.cos(angle)) for r, angle in outline], colour)
        return image.resize((width, height), Image.Resampling.BILINEAR)


def _ring(radii: list[float], first: float = 0.0) -> list[tuple[float, float]]:
    return [(r, first + 2 * math.pi * i / len(radii)) for i, r in enumerate(radii)]


def _cross() -> list[tuple[float, float]]:
    far, near, spread = 1.0, 0.42, math.atan2(0.3, 1.0)
    corners = []
    for quarter in range(4):
        middle = quarter * math.pi / 2
        corners += [(far, middle - spread), (far, middle + spread), (near, middle + math.pi / 4)]
    return corners


_OUTLINES = {  # corners as (radius, angle from straight up)
    "square": _ring([1.0] * 4, math.pi / 4),
    "triangle": _ring([1.0] * 3),
    "cross": _cross(),
}


def _shaded(colour: tuple[int, int, int], rng: random.Random) -> tuple[int, int, int]:
    red, green, blue = (max(0, min(255, channel + rng.randint(-12, 12))) for channel in colour)
    return red, green, blue


def random_scene(rng: random.Random) -> Scene:
    """One scene, every choice equally likely."""
    return Scene(rng.choice(list(SIZES)), rng.choice(list(COLOURS)), rng.choice(SHAPES), rng.choice(list(GROUNDS)))


def write_images(
    directory: pathlib.Path, count: int, seed: int, first_id: int = 1, size: tuple[int, int] = (320, 240)
) -> dict[str, Scene]:
    """Draws `count` scenes of `size` (width, height) as `<12-digit id>.jpg`; returns the scene of each file name."""
    directory.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    scenes = {}
    for image_id in range(first_id, first_id + count):
        scene = random_scene(rng)
        name = f"{image_id:012d}.jpg"
        scene.draw(rng, *size).save(directory / name, quality=92)
        scenes[name] = scene
    return scenes


def write_coco(
    directory: pathlib.Path, train: int, val: int, seed: int = 0, year: int = 2017, size: tuple[int, int] = (320, 240)
) -> None:
    """Writes `train<year>/`, `val<year>/` and `annotations/captions_*.json` under `directory`."""
    (directory / "annotations").mkdir(parents=True, exist_ok=True)
    for number, (split, count) in enumerate({"train": train, "val": val}.items()):
        split_seed = seed * 10 + number
        scenes = write_images(directory / f"{split}{year}", count, split_seed, 1 + number * 100_000, size)
        rng = random.Random(split_seed)
        images: list[dict] = []
        annotations: list[dict] = []
        for name, scene in scenes.items():
            image_id = int(name.removesuffix(".jpg"))
            images.append({"id": image_id, "file_name": name, "width": size[0], "height": size[1]})
            for caption in scene.captions(rng):
                annotations.append({"id": len(annotations) + 1, "image_id": image_id, "caption": caption})
        content = {"info": {"description": "drawn scenes"}, "images": images, "annotations": annotations}
        (directory / "annotations" / f"captions_{split}{year}.json").write_text(json.dumps(content))

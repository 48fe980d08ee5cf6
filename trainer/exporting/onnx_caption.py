"""Captions of photos, with onnxruntime, numpy and pillow: python caption.py PHOTO... [--beam_width N]"""

import argparse
import json
import pathlib

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

HERE = pathlib.Path(__file__).parent
INFO = json.loads((HERE / "onnx_info.json").read_text())
WORDS = [line.split(" ")[0] for line in (HERE / INFO["vocabulary"]).read_text(encoding="utf-8").splitlines()]
ENCODER, STEP = (onnxruntime.InferenceSession(HERE / INFO[name]) for name in ("encoder", "step"))


def run(session, inputs):
    """Outputs by name; inputs that the graph does not have are left out."""
    names = {each.name for each in session.get_inputs()}
    found = session.run(None, {name: value for name, value in inputs.items() if name in names})
    return {each.name: value for each, value in zip(session.get_outputs(), found, strict=True)}


def pixels(image, size=INFO["image_size"]):
    """An image of Pillow's -> uint8 [1, size, size, 3]."""
    image.draft("RGB", (4 * size, 4 * size))  # a large JPEG at reduced scale, as for training
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):  # of 16 bits Pillow would make all but the darkest white
        image = Image.fromarray((np.asarray(image) / 257 + 0.5).astype(np.uint8))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))[None]


def best(scores, count):
    """The places of the greatest scores [n, words]: [(score, row, word)]."""
    places = np.argsort(-scores, axis=None, kind="stable")[:count]
    found = [(float(scores.flat[place]), *divmod(int(place), scores.shape[1])) for place in places]
    return [one for one in found if np.isfinite(one[0])]


def captions(image, beam_width=INFO["beam_width"], length_penalty=INFO["length_penalty"]):
    """[(text, log probability)] of an image of Pillow's, best first; a beam of one is greedy."""
    given, steps = run(ENCODER, {"pixels": pixels(image)}), INFO["max_length"] - 1
    state = {name: value for name, value in given.items() if name.startswith("state_")}
    live: list = [(0.0, [])]  # (log probability, ids) of captions that go on
    finished: list = []  # the same of those that ended

    def rank(log_prob, length):
        return log_prob / ((5 + length) / 6) ** length_penalty

    for i in range(steps):
        last = np.array([ids[-1] if ids else INFO["start"] for _, ids in live], np.int32)
        found = run(STEP, {**given, **state, "ids": last})
        scores = found["log_probs"] + np.array([[score] for score, _ in live], np.float32)
        scores[:, [INFO["pad"], INFO["start"], INFO["unk"]]] = -np.inf
        if i + 2 < INFO["min_length"]:
            scores[:, INFO["end"]] = -np.inf
        ended = [(score, [*live[row][1], word]) for score, row, word in best(scores, beam_width) if word == INFO["end"]]
        finished = sorted(finished + ended, key=lambda one: -rank(one[0], len(one[1])))[:beam_width]
        worst = rank(finished[-1][0], len(finished[-1][1])) if len(finished) == beam_width else -np.inf
        scores[:, INFO["end"]] = -np.inf
        going_on = [one for one in best(scores, beam_width) if rank(one[0], steps) > worst]  # others cannot win
        live = [(score, [*live[row][1], word]) for score, row, word in going_on]
        if not live:
            break
        state = {name: found[f"next_{name}"][[row for _, row, _ in going_on]] for name in state}
    found = [*finished, *live][:beam_width]
    return [(" ".join(WORDS[i] for i in ids if i != INFO["end"]), score) for score, ids in found]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", nargs="+")
    parser.add_argument("--beam_width", type=int, default=INFO["beam_width"])
    args = parser.parse_args()
    for path in args.photos:
        for text, log_prob in captions(Image.open(path), args.beam_width):
            print(f"{path}\t{np.exp(log_prob):.3g}\t{text}")

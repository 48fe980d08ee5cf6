"""Beam width and length penalty on a validation split: `python -m benchmarks.tuning --model EXPORT --data DIR`.

With the search and the weights that an export carries. BLEU and CIDEr as in trainer.evaluate, times 100.
"""

from __future__ import annotations

import argparse
import collections
import os
from collections.abc import Mapping

from tfrecords_schema.quiet import import_tensorflow

tf = import_tensorflow()
import numpy as np  # noqa: E402

from tfrecords_schema.manifests.model_info import MODEL_INFO, ModelInfo  # noqa: E402
from tfrecords_schema.storage import files  # noqa: E402
from trainer.data import dataset  # noqa: E402
from trainer.model.exported import load_export  # noqa: E402
from trainer.scoring.metrics import Scorer  # noqa: E402
from trainer.search.caption_module import CaptionModule  # noqa: E402

_BATCH = 64
_METRICS = ("bleu_4", "cider", "meteor")


def captions_of(module: CaptionModule, directory, images, width: int, penalty: float) -> dict[str, str]:
    """By id, the best caption of each image; `images` are (ids, features `[B, ...]`)."""
    found = {}
    sizes = [tf.constant(value) for value in (width, directory.info.max_caption_length, penalty)]
    for ids, features in images:
        best = module.caption(tf.constant(features), *sizes)["ids"].numpy()[:, 0]
        found.update(zip(ids, map(directory.vocabulary.decode, best), strict=True))
    return found


def described(captions: Mapping[str, str]) -> list[str]:
    """Cells: words a caption, different captions, different words."""
    words = [caption.split() for caption in captions.values()]
    used = collections.Counter(word for caption in words for word in caption)
    return [f"{np.mean(list(map(len, words))):.1f}", str(len(set(captions.values()))), str(len(used))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="export directory")
    parser.add_argument("--data", required=True, help="feature directory with a val split")
    parser.add_argument("--widths", type=int, nargs="+", default=[1, 2, 3, 4, 5, 10])
    parser.add_argument("--length_penalties", type=float, nargs="+", default=[0.0, 0.4, 0.7, 1.0, 1.3])
    parser.add_argument("--meteor", action="store_true", help="METEOR too, which takes longer than the rest")
    args = parser.parse_args()
    directory = dataset.open_directory(args.data)
    records = list(dataset.images(directory, "val"))
    ids = [record["image/id"].numpy().decode() for record in records]
    features = np.stack([record["image/feature"].numpy().astype(np.float32) for record in records])
    images = [(ids[i : i + _BATCH], features[i : i + _BATCH]) for i in range(0, len(ids), _BATCH)]
    references = {
        id_: [text.decode() for text in record["caption/text"].numpy()]
        for id_, record in zip(ids, records, strict=True)
    }
    info = ModelInfo.loads(files.read_text(os.path.join(args.model, MODEL_INFO)))
    module = CaptionModule(load_export(args.model, info))
    metrics = [name for name in _METRICS if name != "meteor" or args.meteor]
    print(f"{len(ids)} images\n")
    print(f"| width | length penalty | {' | '.join(metrics)} | words a caption | captions | words |")
    print("|---" * (len(metrics) + 5) + "|")
    with Scorer(references, meteor=args.meteor) as scorer:
        for width in args.widths:
            for penalty in args.length_penalties if width > 1 else args.length_penalties[:1]:
                captions = captions_of(module, directory, images, width, penalty)
                scores = scorer(captions).corpus
                cells = [f"{scores[name]:.1f}" for name in metrics] + described(captions)
                print(f"| {width} | {penalty} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()

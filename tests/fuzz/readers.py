"""Readers of everything else: images, feature and export directories, outputs, jobs, tables of captions, words."""

from __future__ import annotations

import json
import pathlib

import numpy as np

from pipelines.captions import captioner, exports, formats, stored
from pipelines.items import ImageError, Reject
from pipelines.output import lifecycle, sidecars
from pipelines.output.names import Names
from pipelines.settings.search import Search
from pipelines.vision import images
from tests.fuzz.oracle import Seen
from tests.support import commands
from tfrecords_schema.errors import RunError
from tfrecords_schema.storage import files
from tfrecords_schema.vocabulary import Vocabulary

_NAMES = Names(["captions"], [".parquet", *formats.SUFFIXES.values()], [formats.COCO])


def pictures(given: pathlib.Path, _: pathlib.Path) -> Seen:
    """Images of all kinds, decoded."""
    rows = rejects = 0
    for path in sorted((given / "pictures").iterdir()):
        if not path.is_file():
            continue
        try:
            pixels = images.decode(path.read_bytes(), 32)
            assert pixels.rgb.shape == (32, 32, 3) and pixels.rgb.dtype == np.uint8 and pixels.height and pixels.width
            rows += 1
        except ImageError:
            rejects += 1
    return Seen(rows, rejects)


def stored_features(given: pathlib.Path, _: pathlib.Path) -> Seen:
    """A feature directory as `pipelines.caption --features` reads it."""
    directory = str(given / "features")
    info = stored.open_features(directory)
    items = list(stored.FeatureRecords(directory, limit=1000).read())
    made = list(
        stored.StoredFeatures(info.features.shape, info.features.dtype, info.images is not None).batches(
            items, None, None
        )
    )
    rejects = sum(isinstance(one, Reject) for one in made)
    rows = sum(len(one.items) for one in made if not isinstance(one, Reject))
    return Seen(rows, rejects, len(items))


def training_data(given: pathlib.Path, _: pathlib.Path) -> Seen:
    """A feature directory as the trainer reads it: every record, batches, references, and the features' moments."""
    import tensorflow as tf

    from trainer.data import batches, dataset

    directory = dataset.open_directory(str(given / "features"))
    rows = 0
    try:  # told as trainer.task tells it
        for split, info in directory.info.splits.items():
            if info.images:
                for batch in batches.Batches(directory, split, 8, 1e9, 0).epoch(0):
                    assert batch.ids.min() >= 0 and batch.ids.max() < len(directory.vocabulary)
                rows += len(batches.references(directory, split))
        dataset.feature_moments(directory, pooled=False, covariance=False)
        dataset.place_of_images(directory)
    except tf.errors.OpError as error:
        raise RunError(dataset.find_damaged(directory) or files.reason(error)) from error
    return Seen(rows, 0, sum(info.images for info in directory.info.splits.values()))


def model(given: pathlib.Path, _: pathlib.Path) -> Seen:
    """What an export directory says of itself, and whether its features could be made."""
    info, vocabulary = exports.open_model(str(given / "export"))
    Search().resolved(info)
    return Seen(len(vocabulary))


def saved_model(given: pathlib.Path, _: pathlib.Path) -> Seen:
    """An export directory, loaded to caption; what is missing or cut short must be told."""
    info, _ = exports.open_model(str(given / "export"))
    loaded = captioner.Captioner(str(given / "export"), Search().resolved(info)).load()
    return Seen(len(loaded(np.zeros([2, *info.features.shape], np.float32), ["a", "b"])))


def earlier_output(given: pathlib.Path, _: pathlib.Path) -> Seen:
    """An output directory as a rerun meets it: whether it goes on, and what it takes over."""
    (directory,) = (path for path in given.iterdir() if path.name in ("captions", "begun"))
    options = lifecycle.Options(json.loads((given / "told/report.json").read_text())["options"], {})
    overwrite = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) % 2 == 0  # now so, now so
    found = lifecycle.check(str(directory), options, _NAMES, True)
    shards = found[1] or [] if found else [path.name for path in directory.glob(".work/finished/*.parquet")]
    kept = [sidecar for name in shards if (sidecar := sidecars.read_finished(str(directory), name))]
    for sidecar in kept:
        assert len(sidecar.kept_rows()) <= sidecar.result.records and sum(map(len, sidecar.rejected().values())) >= 0
    lifecycle.check(str(directory), options, _NAMES, overwrite)
    return Seen(len(kept))


def job(given: pathlib.Path, _: pathlib.Path) -> Seen:
    """A job directory as the trainer meets it again."""
    from trainer.training import job as jobs
    from trainer.training.journal import Journal

    settings = json.loads((given / "told/config.json").read_text())
    directory = str(given / "job")
    jobs.check(directory, settings, True)
    Journal(directory)
    return Seen(int(jobs.check(directory, settings, False)))


def gallery(given: pathlib.Path, output: pathlib.Path) -> Seen:
    """A caption table as a page: the whole command."""
    commands.gallery(captions=str(given / "captions"), output=str(output / "page.html"))
    return Seen(1)


def predictions(given: pathlib.Path, _: pathlib.Path) -> Seen:
    """Captions that `trainer.evaluate` scores, of a table or of a file."""
    from trainer.scoring.predictions import read_predictions

    if (given / "captions").exists():
        return Seen(len(read_predictions(str(given / "captions"))))
    paths = sorted((given / "predictions").iterdir())
    return Seen(sum(len(read_predictions(str(path))) for path in paths))


def references(given: pathlib.Path, _: pathlib.Path) -> Seen:
    """What people said, as `trainer.evaluate` reads it."""
    from trainer.scoring.references import read_references

    return Seen(sum(len(read_references([str(path)])) for path in sorted(given.glob("*.json"))))


def words(given: pathlib.Path, _: pathlib.Path) -> Seen:
    """im2txt's list of words."""
    path = str(given / "words/word_counts.txt")
    return Seen(len(Vocabulary.loads(files.read_input("--vocabulary", path), path)))


def embeddings(given: pathlib.Path, _: pathlib.Path) -> Seen:
    """Vectors of words."""
    from trainer.model.pretrained import read_embeddings

    vocabulary = Vocabulary.loads((given / "features/vocabulary.txt").read_text())
    matrix, _ = read_embeddings(str(given / "words/vectors.txt"), vocabulary, 4, 0)
    assert np.isfinite(matrix).all(), "numbers that are none"
    return Seen(len(matrix))

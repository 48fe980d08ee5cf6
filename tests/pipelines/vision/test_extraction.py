import itertools
import os

import numpy as np
import pytest
from PIL import Image

from pipelines.clock import StageClock
from pipelines.items import ImageError, Item, Reject
from pipelines.vision import reading
from pipelines.vision.extraction import FeatureBatch, extract
from pipelines.vision.reading import Reading, read_ahead


class FakeExtractor:
    """The mean colour of each image; remembers the sizes of its batches."""

    size = 32
    pixels = "uint8"
    batch_size = 4
    in_flight = 2

    def __init__(self):
        self.batches = []

    def rows(self, count):
        return self.batch_size

    def __call__(self, pixels):
        self.batches.append(pixels.shape)
        return pixels.mean((1, 2)).astype(np.float32)


def write(directory, number: int) -> Item:
    path = directory / f"{number}.png"
    Image.new("RGB", (20, 10), (number, 0, 0)).save(path)
    return Item(str(number), str(path))


def test_order_padding_and_neighbours_of_bad_images(tmp_path):
    items = [write(tmp_path, number) for number in range(11)]
    (tmp_path / "3.png").write_bytes(b"no image")
    (tmp_path / "5.png").unlink()
    items[8] = Item("8", items[8].uri, problem=ImageError("list", "NoCaption", "none"))
    extractor = FakeExtractor()
    outcomes = list(extract(items, extractor, lambda: extractor, Reading(threads=3), StageClock(), "float32"))

    rejects = [o for o in outcomes if isinstance(o, Reject)]
    assert [(r.image_id, r.stage, r.error) for r in rejects] == [
        ("3", "decode", "NotAnImage"),
        ("5", "read", "Absent"),
        ("8", "list", "NoCaption"),
    ]
    batches = [o for o in outcomes if isinstance(o, FeatureBatch)]
    good = [(item.id, feature[0]) for b in batches for item, feature in zip(b.items, b.features, strict=True)]
    assert good == [(str(n), n) for n in (0, 1, 2, 4, 6, 7, 9, 10)]
    assert extractor.batches == [(4, 32, 32, 3)] * 2, "every batch has the same size"
    assert all(size == (10, 20) for b in batches for size in b.sizes)


def never():
    pytest.fail("the network was loaded, though there is no image for it")


def test_an_unreadable_file_is_rejected(tmp_path):
    (tmp_path / "directory.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")  # which a reader would wait on for ever
    (tmp_path / "link.png").symlink_to("nowhere.png")
    names = ("directory", "pipe", "link")
    items = [Item(name, str(tmp_path / f"{name}.png")) for name in names]
    directory, pipe, link = extract(items, FakeExtractor(), never, Reading(), StageClock(), "float32")
    for outcome in (directory, pipe):
        assert (outcome.stage, outcome.error) == ("read", "Unreadable")
        assert outcome.message == "a directory, a pipe or a device, not a file"
    assert (link.stage, link.error) == ("read", "Absent")


def test_no_more_than_the_window_is_read_ahead(tmp_path, monkeypatch):
    item, read, read_bytes = write(tmp_path, 1), [], reading.files.read_bytes
    monkeypatch.setattr(reading.files, "read_bytes", lambda uri: read.append(uri) or read_bytes(uri))
    loaded = read_ahead(itertools.repeat(item), 8, Reading(threads=2), 5, StageClock())
    for taken in range(1, 4):
        next(loaded)
        assert taken <= len(read) <= 5 + taken
    loaded.close()
    assert len(read) <= 8


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (1e6, "float16", "the largest value, 1e+06, is too large for float16; give --feature_dtype float32"),
        (np.nan, "float32", "the network's output holds infinity or NaN"),
    ],
)
def test_features_that_are_no_numbers_are_rejected_alone(tmp_path, value, dtype, message):
    class Odd(FakeExtractor):
        def __call__(self, pixels):
            features = super().__call__(pixels)
            features[features[:, 0] == 2] = value
            return features

    extractor = Odd()
    items = [write(tmp_path, number) for number in range(5)]
    outcomes = list(extract(items, extractor, lambda: extractor, Reading(), StageClock(), dtype))
    (reject,) = (o for o in outcomes if isinstance(o, Reject))
    assert (reject.image_id, reject.stage, reject.error, reject.message) == ("2", "extract", "NotFinite", message)
    kept = [item.id for o in outcomes if isinstance(o, FeatureBatch) for item in o.items]
    assert kept == ["0", "1", "3", "4"] and outcomes[-1].features.dtype == dtype


def test_a_bug_in_the_network_is_not_taken_for_a_bad_image(tmp_path):
    class Broken(FakeExtractor):
        def __call__(self, pixels):
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        list(extract([write(tmp_path, 1)], Broken(), Broken, Reading(), StageClock(), "float32"))

"""Images as im2txt's models are given them, against TensorFlow 1's own operations."""

import dataclasses
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipelines.clock import StageClock
from pipelines.items import Item
from pipelines.vision import images, reading
from pipelines.vision.extraction import extract
from pipelines.vision.extractors import Extractor
from tests.support.pictures import encoded, smooth
from tests.support.small import TINY
from tfrecords_schema.manifests.features_info import IM2TXT_RESIZE
from tfrecords_schema.networks import registry

SIZES = [(640, 480), (333, 1000), (299, 299), (346, 200), (30, 20), (1, 5), (1500, 1000)]


def as_tensorflow_1(rgb) -> np.ndarray:
    """`process_image` of im2txt but for its last two lines, in 0..1."""
    image = tf.image.convert_image_dtype(rgb, tf.float32)
    image = tf.compat.v1.image.resize_images(image, [346, 346], method=tf.image.ResizeMethod.BILINEAR)
    return tf.image.resize_with_crop_or_pad(image, 299, 299).numpy()


def pixels(data: bytes) -> np.ndarray:
    found = images.encoded(data, 299, resize=IM2TXT_RESIZE).pixels(299)
    assert found.rgb.dtype == np.float32 and found.rgb.shape == (299, 299, 3)
    return found.rgb / 255


@pytest.mark.parametrize("size", SIZES)
def test_pixels_are_tensorflows_own(size):
    width, height = size
    jpeg, png = (encoded(smooth(height, width), kind) for kind in ("JPEG", "PNG"))
    np.testing.assert_allclose(pixels(jpeg), as_tensorflow_1(tf.io.decode_jpeg(jpeg, 3)), atol=2e-6)
    np.testing.assert_allclose(pixels(png), as_tensorflow_1(tf.io.decode_png(png, 3)), atol=2e-6)


def test_a_grey_photo_and_that_the_usual_way_is_another():
    grey = encoded(smooth(50, 70).convert("L"), "JPEG")
    np.testing.assert_allclose(pixels(grey), as_tensorflow_1(tf.io.decode_jpeg(grey, 3)), atol=2e-6)
    colour = encoded(smooth(480, 640), "JPEG")
    assert np.abs(pixels(colour) - images.decode(colour, 299).rgb / 255).max() > 0.01


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_photos_are_turned_upright_before_they_are_resized(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    smooth(60, 80).save(file, "JPEG", exif=exif, quality=95)
    stored = tf.io.decode_jpeg(file.getvalue(), 3).numpy()
    upright = np.rot90(stored, {3: 2, 6: 3, 8: 1}[orientation])
    np.testing.assert_allclose(pixels(file.getvalue()), as_tensorflow_1(upright), atol=2e-6)


def test_the_resize_of_an_extractor_reaches_the_network_unrounded(monkeypatch, tmp_path):
    """The tiny network's feature is the mean colour of each part of what it is given."""
    monkeypatch.setitem(registry.NETWORKS, "tiny_im2txt", dataclasses.replace(TINY, resize=IM2TXT_RESIZE))
    path = tmp_path / "image.png"
    smooth(50, 70).save(path)
    extractor = Extractor("tiny_im2txt", "random", batch_size=2)
    assert extractor.spec("float32").resize == IM2TXT_RESIZE
    how = reading.Reading(resize=extractor.resize)
    (batch,) = extract([Item("image", str(path))], extractor, extractor.load, how, StageClock(), "float32")
    rgb = tf.image.convert_image_dtype(np.asarray(Image.open(path)), tf.float32)
    middle = tf.compat.v1.image.resize_images(rgb, [37, 37]).numpy()[2:34, 2:34]
    expected = middle.reshape(4, 8, 4, 8, 3).mean((1, 3)).reshape(1, -1)
    np.testing.assert_allclose(batch.features, expected, rtol=1e-5)

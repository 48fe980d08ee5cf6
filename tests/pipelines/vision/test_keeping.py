"""Images as records keep them: read again with Pillow and TensorFlow, and compared with what they were made from."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipelines.vision import images, keeping
from tests.support.pictures import encoded, smooth
from tfrecords_schema.manifests.features_info import StoredImages

KEEP = StoredImages(short_side=64, quality=90)


def kept(data: bytes, keep: StoredImages = KEEP) -> bytes:
    jpeg = images.encoded(data, 32, keep=keep).pixels(32, keep).jpeg
    assert jpeg is not None
    return jpeg


def read(jpeg: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(jpeg))
    image.load()
    assert image.format == "JPEG" and image.mode == "RGB" and not image.getexif()
    return image


def coloured(height: int, width: int) -> Image.Image:
    """Large patches of seeded colours that flow into each other, which JPEGs change little."""
    patches = np.random.default_rng(1).integers(0, 256, (4, 6, 3), np.uint8)
    return Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC)


def differ(image: Image.Image, other: Image.Image) -> float:
    """Mean difference of the pixels, of 255."""
    return np.abs(np.asarray(image, float) - np.asarray(other, float)).mean()


def test_nothing_is_kept_unless_asked_for():
    assert images.decode(encoded(smooth(90, 80), "JPEG"), 32).jpeg is None


@pytest.mark.parametrize("size", [(64, 64), (90, 64), (30, 40)])
def test_a_small_upright_jpeg_is_kept_as_it_is(size):
    data = encoded(smooth(*size), "JPEG", quality=80)
    assert kept(data) == data


def test_a_small_jpeg_that_has_much_more_in_it_than_pixels_is_not():
    data = encoded(smooth(64, 64), "JPEG") + bytes(3 * 64 * 64)
    assert len(kept(data)) < 3 * 64 * 64


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((200, 150), (85, 64)),
        ((100, 1000), (64, 640)),
        ((2, 4000), (2, 1024)),
        ((4000, 2), (1024, 2)),
        ((1, 5), (1, 5)),
    ],
)
def test_larger_ones_get_the_short_side_asked_for_and_others_their_own(kind, size, expected):
    data = encoded(smooth(*size), kind)
    assert read(kept(data)).size == expected[::-1]


def test_a_large_jpeg_that_is_decoded_at_just_the_size_asked_for_is_kept_at_that_size():
    """For a network of small images, at half of the scale: it was kept whole."""
    data = encoded(smooth(128, 192), "JPEG", quality=60)
    jpeg = images.encoded(data, 8, keep=KEEP).pixels(8, KEEP).jpeg
    assert read(jpeg).size == (96, 64)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("side", [60, 300])
def test_they_stand_upright(orientation, side):
    """Against Pillow's own turning, of a picture of which no two corners are alike."""
    image = coloured(side, side * 3 // 2)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image, "JPEG", quality=98, exif=exif)
    found = Image.open(io.BytesIO(kept(data)))
    turned = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
    expected = image if orientation == 1 else image.transpose(Image.Transpose(turned[orientation]))
    assert (found.width > found.height) == (orientation < 5)
    assert differ(found, expected.resize(found.size, Image.Resampling.BILINEAR)) < 4  # turned otherwise, some 60


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_every_mode_becomes_rgb(mode):
    kind = "JPEG" if mode in ("L", "CMYK") else "PNG"
    image = coloured(200, 200).convert(mode)
    found = read(kept(encoded(image, kind)))
    assert differ(found, image.convert("RGB").resize((64, 64), Image.Resampling.BILINEAR)) < 4


def test_tensorflow_reads_of_it_what_the_extractor_is_given():
    """`trainer.data.stored_images` reads so."""
    data = encoded(smooth(64, 80), "JPEG", quality=95)
    decoded = tf.io.decode_jpeg(kept(data), channels=3, dct_method="INTEGER_ACCURATE")
    np.testing.assert_array_equal(decoded, np.asarray(Image.open(io.BytesIO(data))))
    made = tf.image.resize(tf.cast(decoded, tf.float32), (32, 32), antialias=True)
    assert np.abs(np.round(made) - images.decode(data, 32).rgb).max() <= 2


def test_the_same_image_is_kept_as_the_same_bytes_and_no_upscaling():
    data = encoded(smooth(300, 200), "PNG")
    assert kept(data) == kept(data)
    assert keeping.target(20, 30, KEEP) == (20, 30)


def test_the_feature_does_not_depend_on_it():
    data = encoded(smooth(500, 400), "JPEG")
    np.testing.assert_array_equal(images.encoded(data, 32, keep=KEEP).pixels(32, KEEP).rgb, images.decode(data, 32).rgb)

"""Stored images as the network takes them: against Pillow's resize, and im2txt's distortions by their properties."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipelines.vision import images
from tests.support.pictures import encoded, smooth
from trainer.data import stored_images

JPEG = encoded(smooth(60, 80), "JPEG", quality=95)


@pytest.mark.parametrize("size", [(60, 80), (346, 400), (20, 30)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_squares_are_those_of_the_pipelines(size, mode):
    data = encoded(smooth(*size).convert(mode), "JPEG", quality=95)
    found = stored_images.square(tf.constant(data), 48).numpy().astype(int)
    differences = np.abs(found - images.decode(data, 48).rgb)
    assert found.shape == (48, 48, 3) and differences.max() <= 2 and differences.mean() < 0.3


def distorted(jpeg: bytes, number: int) -> np.ndarray:
    found = stored_images.distorted(tf.constant(jpeg), 48, tf.constant([7, number], tf.int64))
    assert found.shape == (48, 48, 3) and found.dtype == tf.uint8
    return found.numpy()


def test_distortions_follow_from_the_seed():
    assert np.array_equal(distorted(JPEG, 1), distorted(JPEG, 1))
    assert not np.array_equal(distorted(JPEG, 1), distorted(JPEG, 2))


def test_half_are_flipped_and_crops_come_from_everywhere():
    """A ramp from left to right: its direction says what was flipped, its lowest value where the crop begins."""
    ramp = np.repeat(np.linspace(60, 180, 111)[None, :, None], 111, 0).repeat(3, 2).astype(np.uint8)
    jpeg = encoded(Image.fromarray(ramp), "JPEG", quality=95)
    made = [distorted(jpeg, number).astype(float).mean((0, 2)) for number in range(60)]
    rising = [row for row in made if row[-1] > row[0]]
    assert 15 < len(rising) < 45
    # Cropped by 48 of 56 columns: what is seen is 6 / 7 of the ramp, wherever it begins.
    assert len({round(row[0]) for row in made}) > 20


def test_colours_change_within_bounds():
    """A grey square has no hue or saturation to change, and no contrast: only its brightness moves, by 32 at most."""
    grey = encoded(Image.new("RGB", (60, 60), (128, 128, 128)), "JPEG", quality=95)
    levels = [distorted(grey, number) for number in range(40)]
    assert all(level.max() - level.min() <= 2 for level in levels)
    means = np.array([level.mean() for level in levels]) - 128
    assert -33 <= means.min() < -15 and 15 < means.max() <= 33

"""JPEGs of all kinds against Pillow's own decoder and resize, and its verdict on those that are damaged."""

import io

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps

from pipelines.items import ImageError
from pipelines.vision import headers, images, jpegs
from tests.support.pictures import encoded, smooth

SIDES = [(1, 1), (7, 5), (64, 48), (131, 200)]
KINDS = {
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2},
    "4:1:1": {"subsampling": "4:1:1"},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 3},
    "RGB kept": {"keep_rgb": True},
}


def decoded(data: bytes) -> np.ndarray | None:
    """By the decoder alone."""
    image = headers.opened(data, images.MAX_PIXELS)
    return jpegs.decoded(data, image, is_scaled=False)


def pillows(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def near(found: np.ndarray, expected: np.ndarray) -> bool:
    """But for single pixels between two values."""
    difference = np.abs(found.astype(int) - expected)
    return difference.max() <= 1 and difference.astype(bool).mean() < 0.01


@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_pillows(kind, sides):
    data = encoded(smooth(*sides), "JPEG", quality=85, **KINDS[kind])
    assert np.array_equal(decoded(data), pillows(data))


def test_grey_and_several_pictures_in_one_file():
    grey = encoded(smooth(48, 64).convert("L"), "JPEG")
    assert np.array_equal(decoded(grey), pillows(grey))
    several = encoded(smooth(48, 64), "MPO", save_all=True, append_images=[smooth(48, 64, 1)])
    assert Image.open(io.BytesIO(several)).format == "MPO"
    assert np.array_equal(decoded(several), pillows(several))


def test_bytes_after_the_end_do_no_harm():
    data = encoded(smooth(48, 64), "JPEG")
    assert np.array_equal(decoded(data + bytes(100)), pillows(data))


def test_a_line_is_left_to_pillow():
    """It would become many lines when it is resized."""
    data = encoded(smooth(3, 8191), "JPEG")
    expected = np.asarray(Image.open(io.BytesIO(data)).resize((16, 16), Image.Resampling.BILINEAR))
    assert images.encoded(data, 16)._jpeg() is None and near(images.decode(data, 16).rgb, expected)


def test_cmyk_and_other_formats_are_left_to_pillow():
    for kind, mode in (("JPEG", "CMYK"), ("PNG", "RGB")):
        data = encoded(smooth(48, 64).convert(mode), kind)
        assert decoded(data) is None
        expected = Image.open(io.BytesIO(data)).convert("RGB").resize((16, 16), Image.Resampling.BILINEAR)
        assert near(images.decode(data, 16).rgb, np.asarray(expected))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_when_it_is_small_as_if_turned_before(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(smooth(150, 200), "JPEG", exif=exif, quality=95)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    pixels = images.decode(data, 99)
    assert (pixels.width, pixels.height) == upright.size
    assert near(pixels.rgb, np.asarray(upright.resize((99, 99), Image.Resampling.BILINEAR)))


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_reduced_scales_are_pillows(factor):
    data = encoded(smooth(130 * factor - 1, 150 * factor - 1), "JPEG", quality=90)
    image = Image.open(io.BytesIO(data))
    image.draft(None, (128, 128))
    assert image.size == (150, 130)
    found = images.encoded(data, 32)._jpeg()
    assert np.array_equal(found, np.asarray(image)) and images.decode(data, 32).width == 150 * factor - 1


def test_large_ones_do_not_share_memory(monkeypatch):
    """Those that are larger than what a thread keeps have memory of their own."""
    monkeypatch.setattr(jpegs, "_KEPT_BYTES", 48 * 64 * 3)
    kept, large = encoded(smooth(48, 64), "JPEG"), encoded(smooth(48, 65), "JPEG")
    first = decoded(large)
    assert not np.shares_memory(first, decoded(large)) and np.array_equal(first, pillows(large))
    assert np.shares_memory(decoded(kept), decoded(kept))


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_what_has_the_size_already_outlives_the_next_image(orientation):
    """A thread decodes them ahead of whoever takes them, all into the same memory."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    pictures = [encoded(smooth(48, 48, seed), "JPEG", exif=exif) for seed in range(3)]
    found = [images.decode(data, 48).rgb for data in pictures]
    for data, rgb in zip(pictures, found, strict=True):
        assert np.array_equal(rgb, np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))))


def verdict(data: bytes) -> object:
    try:
        return images.decode(data, 16).rgb.tolist()
    except ImageError as error:
        return error.error


@pytest.mark.parametrize("kind", ["4:2:0", "progressive", "restarts"])
def test_cut_or_damaged_ones_have_pillows_verdict(monkeypatch, kind):
    """Pixels too: none passes with rows missing that Pillow would not pass."""
    rng = np.random.default_rng(0)
    data = encoded(smooth(40, 56), "JPEG", **KINDS[kind])
    cases = [data[:length] for length in range(0, len(data), max(1, len(data) // 120))] + [data[:-1], data[:-2]]
    for _ in range(200):
        damaged = bytearray(data)
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            damaged[at] = rng.choice([0, 255, 0xD8, 0xD9, 0xC4, rng.integers(256)])
        cases.append(bytes(damaged))
    found = [verdict(case) for case in cases]
    assert {"Truncated", "NotAnImage"} <= {case for case in found if isinstance(case, str)}
    assert any(isinstance(case, list) for case in found)
    assert all(isinstance(case, str) for case, cut in zip(found, cases, strict=True) if len(cut) < len(data) - 2)

    def refused(*args, **options):
        raise ValueError("Pillow is to decode it")

    monkeypatch.setattr(simplejpeg, "decode_jpeg", refused)
    assert [verdict(case) for case in cases] == found

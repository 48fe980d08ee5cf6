import numpy as np
import pytest
from PIL import Image

from pipelines.items import ImageError
from pipelines.vision import images, resizing
from tests.support.pictures import encoded, smooth

RED_LEFT = np.zeros((40, 60, 3), np.uint8)
RED_LEFT[:, :30] = (255, 0, 0)


def is_red_left(pixels: images.Pixels) -> bool:
    left, right = pixels.rgb[8, 2].astype(int), pixels.rgb[8, -3].astype(int)
    return abs(left - (255, 0, 0)).max() < 12 and abs(right).max() < 12


def rejected(data: bytes, **options) -> tuple[str, str]:
    with pytest.raises(ImageError) as error:
        images.decode(data, 16, **options)
    assert error.value.stage == "decode" and error.value.message
    return error.value.error, error.value.message


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM"])
def test_formats(kind):
    pixels = images.decode(encoded(Image.fromarray(RED_LEFT), kind), 16)
    assert pixels.rgb.shape == (16, 16, 3) and pixels.rgb.dtype == np.uint8
    assert (pixels.height, pixels.width) == (40, 60)
    assert is_red_left(pixels)


@pytest.mark.parametrize("resizer", ["the fast one", "Pillow"])
@pytest.mark.parametrize("size", [(70, 50), (640, 480), (333, 1000), (16, 40), (5, 7), (1, 1), (1, 600), (600, 1)])
def test_equals_pillows_own_resize(monkeypatch, resizer, size):
    """But for one pixel in some hundreds that lies between two values."""
    if resizer == "Pillow":
        monkeypatch.setattr(resizing, "fast", None)
    elif resizing.fast is None:
        pytest.skip("cykooz.resizer is not installed")
    width, height = size
    image = smooth(height, width)
    expected = np.asarray(image.resize((99, 99), Image.Resampling.BILINEAR), int)
    found = images.decode(encoded(image, "PNG"), 99).rgb
    assert np.abs(found - expected).max() <= (height <= 16 * width)
    assert (found != expected).mean() < (0.01 if height <= 16 * width else 0.25)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    """Stored pixels are turned so that, after orientation, the picture is upright."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = Image.fromarray(RED_LEFT)
    if orientation in undo:
        stored = stored.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = images.decode(encoded(stored, "JPEG", exif=exif, quality=95), 16)
    assert (pixels.height, pixels.width) == (40, 60)
    assert is_red_left(pixels)


def test_a_broken_exif_block_is_passed_over():
    good = encoded(Image.fromarray(RED_LEFT), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    with pytest.warns(UserWarning, match="Corrupt EXIF data"):  # Pillow's own
        assert is_red_left(images.decode(good, 16))


@pytest.mark.parametrize("mode", ["L", "1", "I;16", "I", "F"])
def test_grey_images(mode):
    values = np.zeros((40, 60), np.uint8)
    values[:, :30] = 255
    if mode in ("I;16", "I"):
        image = Image.fromarray(values.astype(np.uint16) * 257).convert(mode)
    elif mode == "F":
        image = Image.fromarray(values.astype(np.float32) / 255)
    else:
        image = Image.fromarray(values).convert(mode)
    pixels = images.decode(encoded(image, "TIFF"), 16)
    assert pixels.rgb[8, 2].min() > 250 and pixels.rgb[8, -3].max() < 5


def test_a_float_pixel_that_is_no_number_leaves_the_others_as_they_are():
    values = np.full((40, 60), 200, np.float32)
    values[0, 0] = np.nan
    assert images.decode(encoded(Image.fromarray(values), "TIFF"), 16).rgb[8, 8].tolist() == [200, 200, 200]


def test_no_other_program_is_run_on_an_image():
    """Pillow would hand EPS to Ghostscript."""
    eps = encoded(Image.fromarray(RED_LEFT), "EPS")
    assert eps.startswith(b"%!PS") and rejected(eps)[0] == "NotAnImage"


def test_transparency_is_laid_over_white():
    rgba = np.dstack([RED_LEFT, np.full((40, 60), 255, np.uint8)])
    rgba[:, 30:, 3] = 0
    for image in (Image.fromarray(rgba), Image.fromarray(rgba).convert("PA")):
        pixels = images.decode(encoded(image.convert("RGBA"), "PNG"), 16)
        assert pixels.rgb[8, 2].tolist() == [255, 0, 0] and pixels.rgb[8, -3].tolist() == [255, 255, 255]


def test_transparent_palette_and_cmyk():
    palette = Image.fromarray(RED_LEFT).convert("P")
    data = encoded(palette, "PNG", transparency=palette.getpixel((59, 0)))
    assert images.decode(data, 16).rgb[8, -3].tolist() == [255, 255, 255]
    assert is_red_left(images.decode(encoded(Image.fromarray(RED_LEFT).convert("CMYK"), "JPEG", quality=95), 16))


def test_first_frame_of_an_animation():
    frames = [Image.fromarray(RED_LEFT), Image.new("RGB", (60, 40), "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert is_red_left(images.decode(data, 16))


@pytest.mark.parametrize("orientation", [1, 6])
def test_large_jpegs_decoded_at_reduced_scale_look_the_same(orientation):
    smooth = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)).resize((1600, 1200), 2)
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = images.decode(encoded(smooth, "JPEG", quality=95, exif=exif), 128)
    upright = smooth if orientation == 1 else smooth.transpose(Image.Transpose.ROTATE_270)
    assert (pixels.width, pixels.height) == upright.size, "the size is the file's, not the decoder's"
    exact = np.asarray(upright.resize((128, 128), Image.Resampling.BILINEAR), np.int16)
    assert np.abs(pixels.rgb - exact).mean() < 1.5 and np.abs(pixels.rgb - exact).max() < 12


@pytest.mark.parametrize(("kind", "mode"), [("BMP", "RGB"), ("WEBP", "RGB"), ("WEBP", "RGBA"), ("TIFF", "RGB")])
def test_other_formats(kind, mode):
    assert is_red_left(images.decode(encoded(Image.fromarray(RED_LEFT).convert(mode), kind, quality=95), 16))


def test_rejects_what_is_no_image():
    assert rejected(b"") == ("Empty", "the file has 0 bytes")
    assert rejected(b"<html>404</html>")[0] == "NotAnImage"


@pytest.mark.parametrize(
    ("kind", "missing"), [("JPEG", 1), ("JPEG", 3), *[(kind, n) for kind in ("JPEG", "PNG", "WEBP") for n in (50, 500)]]
)
def test_rejects_images_that_end_early(kind, missing):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    assert rejected(data[:-missing])[0] in ("Truncated", "Damaged", "NotAnImage")


def test_rejects_a_huge_image_from_its_header():
    data = encoded(Image.new("1", (5000, 4000)), "PNG")  # 20 million pixels in 2.5 kB
    assert rejected(data, max_pixels=1_000_000) == ("TooLarge", "5000 x 4000 pixels, more than 1000000")
    header = data[: data.index(b"IDAT")] + b"IDAT"
    assert rejected(header, max_pixels=1_000_000)[0] == "TooLarge"

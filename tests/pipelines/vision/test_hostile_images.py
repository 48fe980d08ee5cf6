"""Images that mean harm: what decoding takes is bounded, and what is refused has its reason."""

import struct
import threading
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from pipelines.clock import StageClock
from pipelines.items import ImageError, Item
from pipelines.vision import images, memory, reading, resizing
from tests.support import bounded
from tests.support.pictures import encoded


def rejected(data: bytes, **options) -> tuple[str, str]:
    with pytest.raises(ImageError) as error:
        images.decode(data, 16, **options)
    assert error.value.stage == "decode"
    return error.value.error, error.value.message


def decoded(path, data: bytes, limit_mb: int, **options) -> tuple[object, float]:
    """What came of it in a process of its own, and the megabytes it took beside those of the file."""
    path.write_bytes(data)
    (outcome,), peak_mb = bounded.read([str(path)], limit_mb=limit_mb, size=4, **options)
    return outcome, peak_mb - len(data) / 2**20


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, depth: int, colours: int, *before: bytes) -> bytes:
    """All zeros, in a thousandth of their size."""
    row = 1 + width * depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colours] // 8
    packing = zlib.compressobj(1)
    packed = b"".join(packing.compress(bytes(row)) for _ in range(height)) + packing.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(before) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


GREY_16, RGBA_8, GREY_AND_ALPHA = (16, 0), (8, 6), (8, 4)


@pytest.mark.parametrize(("kind", "most"), [(GREY_16, 8), (RGBA_8, 10), (GREY_AND_ALPHA, 10)])
def test_what_lies_between_is_made_in_strips(tmp_path, kind, most):
    """Bytes of a pixel, at most; 16 bits of grey took 34."""
    width, height = 4000, 3000
    outcome, peak_mb = decoded(tmp_path / "a.png", png(width, height, *kind), limit_mb=1000)
    assert np.array(outcome).shape == (4, 4, 3)
    assert peak_mb * 2**20 / (width * height) < most
    assert images.encoded((tmp_path / "a.png").read_bytes(), 4).memory <= most * width * height


@pytest.mark.parametrize("mode", ["I;16", "I", "F", "RGBA", "LA", "PA", "P", "RGB"])
def test_strips_are_no_other_pixels(monkeypatch, mode):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (70, 50, 4), np.uint8))
    if mode in ("I;16", "I", "F"):
        kinds = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
        image = Image.fromarray(rng.integers(0, 60_000, (70, 50)).astype(kinds[mode]))
    else:
        image = image.convert({"LA": "LA", "RGBA": "RGBA"}.get(mode, "RGB")).convert(mode)
    options = {"P": {"transparency": 7}, "RGB": {"transparency": (1, 2, 3)}}.get(mode, {})
    data = encoded(image, "PNG" if options else "TIFF", **options)
    whole = images.decode(data, 16).rgb
    monkeypatch.setattr(resizing, "STRIP_PIXELS", 230)
    assert np.array_equal(images.decode(data, 16).rgb, whole) and whole.std() > 1


def test_large_images_wait_for_one_another_and_small_ones_do_not():
    budget = memory.Budget(3 * memory._SMALL_BYTES)
    large, events = 2 * memory._SMALL_BYTES, []
    entered = threading.Event()

    def second():
        with budget.taking(large):
            events.append("second")
            entered.set()

    with budget.taking(large):
        thread = threading.Thread(target=second)
        thread.start()
        with budget.taking(memory._SMALL_BYTES):
            events.append("small")
        assert not entered.wait(0.2)
        events.append("first is done")
    thread.join()
    assert events == ["small", "first is done", "second"]
    with budget.taking(100 * large):  # more than there are
        pass
    with pytest.raises(ImageError), budget.taking(large):
        raise ImageError("decode", "Damaged", "x")
    with budget.taking(3 * memory._SMALL_BYTES):  # all of it is there again
        pass


def icon(inner: bytes) -> bytes:
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inner), 22)
    return struct.pack("<HHH", 0, 1, 1) + entry + inner


def test_an_icon_is_as_large_as_the_image_in_it(tmp_path):
    """Its own header has a byte for each side, and Pillow decodes it while opening it."""
    outcome, peak_mb = decoded(tmp_path / "a.ico", icon(png(20_000, 20_000, 1, 0)), limit_mb=1000)
    assert outcome == ["decode", "TooLarge", "20000 x 20000 pixels, more than 89478485"] and peak_mb < 20
    bitmap = struct.pack("<IiiHHIIiiII", 40, 30_000, 60_000, 1, 32, 0, 0, 0, 0, 0, 0)
    outcome, peak_mb = decoded(tmp_path / "b.ico", icon(bitmap), limit_mb=1000)
    assert outcome[:2] == ["decode", "TooLarge"] and peak_mb < 20
    assert rejected(b"\0\0\1\0")[0] == "NotAnImage"
    small = images.decode(encoded(Image.new("RGB", (48, 48), "red"), "ICO"), 16)
    assert (small.height, small.width) == (48, 48) and small.rgb[8, 8].tolist() == [255, 0, 0]


TEXT = zlib.compress(bytes(200 << 20), 9)
CHUNKS = {
    "zTXt": chunk(b"zTXt", b"k\0\0" + TEXT),
    "iTXt": chunk(b"iTXt", b"k\0\1\0\0\0" + TEXT),
    "iCCP": chunk(b"iCCP", b"k\0\0" + TEXT),
    "many": b"".join(chunk(b"zTXt", b"k%d\0\0" % n + zlib.compress(bytes(1 << 20))) for n in range(100)),
}


@pytest.mark.parametrize("kind", CHUNKS)
def test_text_and_profiles_of_png_are_not_unpacked_whole(tmp_path, kind):
    outcome, peak_mb = decoded(tmp_path / "a.png", png(16, 16, 8, 2, CHUNKS[kind]), limit_mb=500)
    assert outcome[:2] == ["decode", "Damaged"] or np.array(outcome).shape == (4, 4, 3)
    assert peak_mb < 150


def changed(data: bytes, tag: int, **fields: int) -> bytes:
    """With another count or value in a tag of a little-endian TIFF."""
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    (at,) = [p for p in range(start + 2, start + 2 + 12 * count, 12) if data[p : p + 2] == struct.pack("<H", tag)]
    kind, number, value = struct.unpack_from("<HII", data, at + 2)
    entry = struct.pack("<HHII", tag, kind, fields.get("count", number), fields.get("value", value))
    return data[:at] + entry + data[at + 12 :]


STRIP_OFFSETS, STRIP_BYTES, SOFTWARE = 273, 279, 305


@pytest.mark.parametrize("tag", [STRIP_OFFSETS, STRIP_BYTES, SOFTWARE])
@pytest.mark.parametrize("fields", [{"count": 0xFFFFFFFF}, {"count": 0x7FFFFFFF}, {"value": 0xFFFFFFF0}])
def test_tags_of_tiff_that_are_absurd(tmp_path, tag, fields):
    data = changed(
        encoded(Image.new("RGB", (64, 64)), "TIFF", compression="tiff_lzw", software="x" * 99), tag, **fields
    )
    outcome, peak_mb = decoded(tmp_path / "a.tif", data, limit_mb=500)
    assert outcome[:2] in (["decode", "Damaged"], ["decode", "NotAnImage"]) or np.array(outcome).shape == (4, 4, 3)
    assert peak_mb < 50


def test_a_strip_of_tiff_that_inflates(tmp_path):
    """To more than its pixels."""
    data = encoded(Image.new("RGB", (64, 64), "red"), "TIFF", compression="tiff_adobe_deflate")
    packed = zlib.compress(bytes(200 << 20), 1)
    data = changed(changed(data, STRIP_OFFSETS, value=len(data)), STRIP_BYTES, value=len(packed)) + packed
    outcome, peak_mb = decoded(tmp_path / "a.tif", data, limit_mb=500)
    assert outcome == [[[0, 0, 0]] * 4] * 4 and peak_mb < 50


def test_libtiff_says_nothing_on_the_screen(tmp_path):
    """`decoded` takes care that there is nothing."""
    data = encoded(Image.new("RGB", (64, 64), "red"), "TIFF", compression="tiff_lzw", tiffinfo={65000: "x" * 9})
    assert decoded(tmp_path / "a.tif", data, limit_mb=500)[0] == [[[255, 0, 0]] * 4] * 4
    broken = changed(data, STRIP_BYTES, value=5)
    assert decoded(tmp_path / "b.tif", broken, limit_mb=500)[0][:2] == ["decode", "Damaged"]


SCREEN = b"GIF89a" + struct.pack("<HHBBB", 16, 16, 0, 0, 0)
FRAME = b"," + struct.pack("<HHHHB", 0, 0, 16, 16, 0) + b"\2"


@pytest.mark.parametrize("data", [SCREEN + b";", SCREEN + b"!\xfe\3abc\0;", SCREEN + FRAME + b"\0;"])
def test_a_gif_without_an_image_is_empty(data):
    assert rejected(data)[0] == "Empty" and rejected(data)[1].startswith("a GIF w")


@pytest.mark.parametrize("length", [6, 13, 16, len(SCREEN + FRAME)])
def test_a_gif_that_ends_early_is_truncated(length):
    assert rejected((SCREEN + FRAME)[:length])[0] == "Truncated"


def test_a_gif_of_long_comments_takes_no_hours():
    """Pillow needs half a minute for ten megabytes of them, and a hundred times that for a hundred."""
    comment = b"!\xfe" + (b"\xff" + bytes(255)) * 400_000 + b"\0"
    started = time.monotonic()
    error, message = rejected(SCREEN + comment + b"!\xf9\0\0" + FRAME)
    assert (error, message) == ("Damaged", "a GIF with 1048576 bytes or more before its first image")
    assert time.monotonic() - started < 5
    assert rejected(SCREEN + b"!\xf9\0" + comment) == (error, message), "as Pillow reads a first block without bytes"


def test_what_stands_before_the_image_of_a_gif_is_passed_over():
    data = encoded(Image.new("P", (16, 16), 3), "GIF", comment=b"c" * 5000, loop=3, duration=9)
    plain = images.decode(encoded(Image.new("P", (16, 16), 3), "GIF"), 16)
    assert b"NETSCAPE" in data and np.array_equal(images.decode(data, 16).rgb, plain.rgb)
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], comment=b"c" * 5000, loop=3)
    assert b"NETSCAPE" in data and images.decode(data, 16).rgb[8, 8].tolist() == [255, 0, 0]


def test_threads_that_decode_share_one_budget(tmp_path, monkeypatch):
    """Two of these images are more than there is."""
    monkeypatch.setattr(memory, "_SMALL_BYTES", 1_000_000)
    budget = memory.Budget(2_000_000)
    monkeypatch.setattr(memory, "DECODING", budget)
    monkeypatch.setattr(reading.devices, "cores", lambda: 8)
    data = encoded(Image.new("RGBA", (400, 400), "red"), "PNG")
    assert images.encoded(data, 16).memory == 1_280_000
    items = [Item(str(number), str(tmp_path / f"{number}.png")) for number in range(20)]
    for item in items:
        (tmp_path / f"{item.id}.png").write_bytes(data)
    free, pixels = [], images.Encoded.pixels

    def spy(self, size, keep):
        free.append(budget._free)
        return pixels(self, size, keep)

    monkeypatch.setattr(images.Encoded, "pixels", spy)
    found = list(reading.read_ahead(items, 16, reading.Reading(threads=8), 16, StageClock()))
    assert [loaded.rgb[8, 8].tolist() for _, loaded in found] == [[255, 0, 0]] * 20
    assert free == [720_000] * 20 and budget._free == 2_000_000


def test_a_column_of_pixels_is_not_made_wide_before_it_is_short(tmp_path):
    """299 columns of it would be 900 MB."""
    (tmp_path / "a.png").write_bytes(png(1, 1_000_000, 8, 0))
    (outcome,), peak_mb = bounded.read([str(tmp_path / "a.png")], limit_mb=400, size=299)
    assert outcome == [[[0, 0, 0]] * 299] * 299 and peak_mb < 60


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_where_memory_ends_no_image_is_to_blame(tmp_path, kind):
    """Pillow's and libjpeg-turbo's decoders ask for more than there is; with more of it, the image is decoded."""
    path = tmp_path / "a"
    path.write_bytes(encoded(Image.linear_gradient("L").convert("RGB").resize((3000, 3000)), kind))
    assert bounded.read([str(path)], limit_mb=25, size=400)[0] == ["MemoryError"]
    assert np.array(bounded.read([str(path)], limit_mb=1000, size=400)[0][0]).shape == (400, 400, 3)

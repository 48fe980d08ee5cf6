"""`pipelines.load`: the very captions of the batch job, of images in every form, and what is wrong with one."""

import io
import pathlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import pipelines
from pipelines.captions.captioner import Caption
from pipelines.items import ImageError
from tests.support import ROOT
from tests.support.outputs import rows
from tfrecords_schema.errors import InputError


@pytest.fixture(scope="module")
def captioner(trained):
    return pipelines.load(trained / "job/export")


@pytest.fixture
def photos(coco_dir) -> list[pathlib.Path]:
    return sorted((coco_dir / "val2017").glob("*.jpg"))


def assert_same(captions: list[Caption], row: dict) -> None:
    assert [caption.text for caption in captions] == [entry["caption"] for entry in row["captions"]]
    np.testing.assert_allclose(
        [caption.log_prob for caption in captions], [entry["log_prob"] for entry in row["captions"]], rtol=1e-5
    )


def test_captions_are_those_of_the_batch_job(run, captioner, photos):
    table = rows(run(word_scores=True)[0])
    found = captioner(photos)
    assert len(found) == len(table) == 8
    for path, captions in zip(photos, found, strict=True):
        row = table[path.stem]
        assert_same(captions, row)
        words = row["captions"][0]["words"]
        assert list(captions[0].words) == [entry["word"] for entry in words[: len(captions[0].words)]]
        np.testing.assert_allclose(captions[0].word_log_probs, [entry["log_prob"] for entry in words], rtol=1e-4)
        assert_same(captioner(path), row)  # alone too


def test_options_are_those_of_the_command_and_of_one_call(run, captioner, photos, trained):
    given = {"beam_width": 5, "captions_per_image": 2, "max_length": 7, "length_penalty": 0.0, "prefix": "a"}
    before = captioner(photos[0])
    table = rows(run(**given)[0])
    for path, captions in zip(photos, captioner(photos, **given), strict=True):
        assert_same(captions, table[path.stem])
    assert captioner(photos[0]) == before
    always = pipelines.load(trained / "job/export", batch_size=2, capitalise=True, **given)
    for path, captions in zip(photos, always(photos), strict=True):
        assert [caption.text.lower() for caption in captions] == [c["caption"] for c in table[path.stem]["captions"]]
        assert captions[0].text[0] == "A"


def test_drawn_captions_are_those_of_the_batch_job(run, captioner, photos):
    given = {"sample": True, "captions_per_image": 3, "seed": 5}
    table = rows(run(**given)[0])
    for path, captions in zip(photos, captioner(photos, **given), strict=True):
        assert_same(captions, table[path.stem])


def test_an_image_in_every_form(captioner, photos):
    expected = captioner(photos[0])
    photo = Image.open(photos[0])
    forms = [str(photos[0]), photos[0].read_bytes(), bytearray(photos[0].read_bytes()), photo, np.asarray(photo)]
    for captions in captioner(forms):
        assert [caption.text for caption in captions] == [caption.text for caption in expected]
        np.testing.assert_allclose(captions[0].log_prob, expected[0].log_prob, rtol=1e-5)
    grey = captioner(np.zeros([9, 7], np.uint8))
    assert grey == captioner(np.zeros([9, 7, 3], np.uint8)) and grey != expected
    clear = captioner(np.zeros([9, 7, 4], np.uint8))  # over white
    assert clear == captioner(np.full([9, 7, 3], 255, np.uint8))


def test_an_image_of_pillows_is_looked_at_upright_and_stays_as_it_is(captioner, photos):
    photo = Image.open(photos[0]).convert("RGB")
    turned, exif = photo.transpose(Image.Transpose.ROTATE_90), Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    turned.save(file, "PNG", exif=exif)
    opened = Image.open(file)
    upright, other, png = captioner([photo, turned, opened])
    assert upright == png != other
    assert opened.getexif()[0x0112] == 6 and opened.size == turned.size


def test_what_is_wrong_with_an_image_is_what_a_rejects_table_says(run, captioner, photos, tmp_path):
    bad = {"text.jpg": b"hello", "empty.jpg": b"", "short.jpg": photos[0].read_bytes()[:900]}
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
    output, _ = run(images=[str(tmp_path / name) for name in bad], max_reject_fraction=1.0)
    table = pq.read_table(output / "rejects/captions.parquet").to_pylist()
    expected = {f"{row['image_id']}.jpg": (row["stage"], row["error"], row["message"]) for row in table}
    good, *found = captioner([photos[1], *bad.values(), *(tmp_path / name for name in bad), tmp_path / "none.jpg"])
    assert good == captioner(photos[1])
    assert all(isinstance(error, ImageError) for error in found)
    assert [error.args for error in found] == [
        *[expected[name] for name in bad] * 2,
        ("read", "Absent", "no such file"),
    ]
    with pytest.raises(ImageError, match=r"^decode/NotAnImage: no known image format; begins with b'hello'$"):
        captioner(b"hello")
    with pytest.raises(ImageError, match="decode/Truncated: "):
        captioner(Image.open(tmp_path / "short.jpg"))
    assert captioner([]) == []


def test_large_images_are_refused_from_their_header(trained):
    small = pipelines.load(trained / "job/export", max_pixels=100)
    for image in (Image.new("RGB", (20, 20)), np.zeros([20, 20, 3], np.uint8)):
        with pytest.raises(ImageError, match="decode/TooLarge: 20 x 20 pixels, more than 100"):
            small(image)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda c: c(3), TypeError, "expected a path, bytes, .* found int"),
        (lambda c: c([np.zeros([4, 4, 3])]), TypeError, r"found float64 \[4, 4, 3\]"),
        (lambda c: c(np.zeros([0, 4], np.uint8)), TypeError, r"found uint8 \[0, 4\]"),
        (lambda c: c(b"", beam_width=0), InputError, "--beam_width: expected at least 1, found 0"),
        (lambda c: c(b"", beams=3), TypeError, r"^unknown option 'beams'; there are beam_width, "),
        (
            lambda c: c(b"", beam_with=3),
            TypeError,
            r"^unknown option 'beam_with'; did you mean beam_width\? There are ",
        ),
        (lambda c: c(b"", prefix="zebra"), InputError, "--prefix: expected words of the model's vocabulary"),
        (lambda c: pipelines.load("nowhere", weihgts="x"), TypeError, r"'weihgts'; did you mean weights\? There are "),
        (lambda c: pipelines.load("nowhere"), InputError, "--model: expected an export directory"),
    ],
)
def test_mistakes_are_told(captioner, call, error, message):
    with pytest.raises(error, match=message):
        call(captioner)


def test_calls_from_several_threads(captioner, photos):
    def texts(captions: list[Caption]) -> list[str]:
        return [caption.text for caption in captions]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(captioner, photos * 3))
    assert list(map(texts, found)) == list(map(texts, captioner(photos))) * 3


def test_where_a_model_with_attention_looks(run, attentive, photos):
    table = rows(run(model=str(attentive / "job/export"), attention=True)[0])
    best = pipelines.load(attentive / "job/export")(photos[0])[0]
    expected = table[photos[0].stem]["attention"]
    assert list(best.words) == [entry["word"] for entry in expected]
    np.testing.assert_allclose(best.attention, [entry["weights"] for entry in expected], atol=1e-5)


@pytest.mark.slow
def test_beam_is_not_imported_and_the_process_is_not_set_up_for_a_worker(trained, photos):
    """By a process of its own; the tiny network is one of the tests' own, so it enters it into the registry too."""
    code = (
        "import sys\n"
        "from tests.support.small import TINY\n"
        "from tfrecords_schema.networks import registry\n"
        "registry.NETWORKS['tiny'] = TINY\n"
        "import pipelines, pipelines.caption\n"
        "export, photo = sys.argv[1:]\n"
        "print(pipelines.load(export)(photo)[0].text)\n"
        "pipelines.caption.main([photo, '--model', export, '--captions_per_image', '1'])\n"
        "import tensorflow as tf\n"
        "print('apache_beam' in sys.modules, tf.config.threading.get_intra_op_parallelism_threads())"
    )
    command = [sys.executable, "-c", code, str(trained / "job/export"), str(photos[0])]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    called, printed, last = found.stdout.splitlines()
    assert called and printed.startswith(f"{photos[0].name}  {called}  p=") and last == "False 0"

"""The gallery: which images, what is on the page, and how it behaves in a real browser."""

import base64
import html.parser
import io
import json
import math
import pathlib
import shutil
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipelines import gallery
from pipelines.pictures import gallery_page, looks, of_each, thumbnails
from pipelines.vision import images
from tests.support import browser, commands
from tests.support.outputs import write_report
from tests.support.shelf import SHELF, ShelfFileSystem
from tfrecords_schema.errors import InputError
from trainer.scoring.predictions import Prediction
from trainer.scoring.references import match, read_references

_SCORED = pa.struct([("caption", pa.string()), ("log_prob", pa.float32())])
_LOOKED = pa.struct([("word", pa.string()), ("weights", pa.list_(pa.float32()))])
_TYPES = {
    "image_id": pa.string(),
    "image_uri": pa.string(),
    "height": pa.int32(),
    "width": pa.int32(),
    "caption": pa.string(),
    "log_prob": pa.float32(),
    "captions": pa.list_(_SCORED),
    "attention": pa.list_(_LOOKED),
}
_OPTIONS = {"model": "d1c105d2f07bf309957960a366e6c0305e2b85a5", "beam_width": 3, "images": ["*.jpg"]}


def write_table(directory: pathlib.Path, rows: list[dict], shards: int = 1) -> str:
    """A complete caption table of these rows; what a row leaves out is None."""
    directory.mkdir()
    names = [f"captions-{k:05d}-of-{shards:05d}.parquet" for k in range(shards)]
    further = dict.fromkeys(key for row in rows for key in row if key not in _TYPES)
    known = [(key, kind) for key, kind in _TYPES.items() if key != "attention" or any("attention" in r for r in rows)]
    schema = pa.schema([*known, *((key, pa.string()) for key in further)])
    for k, name in enumerate(names):
        pq.write_table(pa.Table.from_pylist(rows[k::shards], schema=schema), directory / name)
    write_report(directory, names, options=_OPTIONS)
    return str(directory)


def write_image(path: pathlib.Path, width: int = 40, height: int = 30, colour: str = "navy") -> str:
    Image.new("RGB", (width, height), colour).save(path)
    return str(path)


def at(row: int, column: int) -> list[float]:
    """8 x 8 weights that sum to 1, most of it at one place."""
    weights = np.full((8, 8), 0.002)
    weights[row, column] = 1 - 63 * 0.002
    return weights.ravel().tolist()


class Elements(html.parser.HTMLParser):
    """The images of a page as (alt, PIL image), and its words as they stand."""

    def __init__(self, page: pathlib.Path):
        super().__init__()
        self.images, self.words = [], ""
        self.feed(page.read_text())

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag == "img":
            kind, _, data = given["src"].partition(",")
            assert kind == "data:image/jpeg;base64"
            self.images.append((given["alt"], Image.open(io.BytesIO(base64.b64decode(data)))))

    def handle_data(self, data):
        self.words += data


# Which images.


@pytest.fixture
def table(tmp_path) -> str:
    """Ten rows in two files, without images; the id of a row says how probable its caption is."""
    rows = [{"image_id": f"p{k}", "caption": f"caption {k}", "log_prob": -float(k)} for k in range(8)]
    rows += [{"image_id": "unknown", "log_prob": None}, {"image_id": "nan", "log_prob": math.nan, "caption": "x"}]
    return write_table(tmp_path / "table", rows, shards=2)


def order(page: pathlib.Path) -> list[str]:
    """The ids on a page, in its order."""
    words = page.read_text().split("<summary>")[1:]
    return [part.split('<span dir="auto">')[1].split("<")[0] for part in words]


def test_random_is_the_same_each_time_and_no_more_than_n(table, tmp_path, capsys):
    found = []
    for name, n in (("a", 200), ("b", 200), ("c", 4)):
        commands.gallery(captions=table, output=str(tmp_path / f"{name}.html"), n=n)
        found.append(order(tmp_path / f"{name}.html"))
    assert len(set(found[0])) == 10 and found[0] == found[1] and found[2] == found[0][:4]
    assert found[0] != sorted(found[0])
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    told = capsys.readouterr().out.splitlines()[2]
    assert told.startswith(f"4 images with their captions in {tmp_path}/c.html, 0.0 MB (4 could not be read from here")
    assert not list(tmp_path.glob("*.tmp"))


def test_the_highest_log_probability_first_and_unknown_ones_last(table, tmp_path):
    commands.gallery(captions=table, output=str(tmp_path / "a.html"), sort="log_prob")
    assert order(tmp_path / "a.html")[:8] == [f"p{k}" for k in range(8)]
    assert "10 of 10" in (tmp_path / "a.html").read_text()


PEOPLE = {
    "1": ("folder/one.jpg", ["A brown dog is running on grass ."]),
    "2": ("two.jpg", ["two children play in the snow", "Kids in deep snow!"]),
    "3": ("three.jpg", ["a man rides a red bicycle", "a man on a bicycle"]),
}


def write_coco(path: pathlib.Path, people: dict = PEOPLE) -> str:
    content = {
        "images": [{"id": int(key), "file_name": name} for key, (name, _) in people.items()],
        "annotations": [{"image_id": int(key), "caption": c} for key, (_, said) in people.items() for c in said],
    }
    path.write_text(json.dumps(content))
    return str(path)


@pytest.fixture
def judged(tmp_path) -> str:
    """Three images that are found by URI, id and the last part of the id; and one that nobody spoke of."""
    rows = [
        {"image_id": "x", "image_uri": "a.zip!/b/one.png", "caption": "a brown dog is running on grass"},
        {"image_id": "2", "image_uri": "elsewhere.jpg", "caption": "a man in the snow"},
        {"image_id": "b/three.jpg", "caption": "zebras"},
        {"image_id": "four", "caption": "four"},
    ]
    return write_table(tmp_path / "judged", rows)


def test_the_worst_by_cider_first_beside_what_people_said(judged, tmp_path, capsys):
    references = write_coco(tmp_path / "people.json")
    commands.gallery(captions=judged, output=str(tmp_path / "a.html"), sort="worst", references=references)
    assert order(tmp_path / "a.html") == ["b/three.jpg", "2", "x"]
    assert f"3 of 4 images have references in {references}\n" in capsys.readouterr().out
    words = Elements(tmp_path / "a.html").words
    assert words.index("CIDEr 0.0") < words.index("CIDEr 1000.0"), "no word in common; the one reference itself"
    assert words.count("CIDEr ") == 4 and all(caption in words for _, said in PEOPLE.values() for caption in said)


def test_references_in_any_order_of_images_and_of_any_kind(judged, tmp_path):
    lines = [{"image": f"{stem}.jpg", "caption": stem} for stem in ("one", "three", "four")]
    (tmp_path / "people.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    commands.gallery(captions=judged, output=str(tmp_path / "a.html"), references=str(tmp_path / "people.jsonl"))
    page = (tmp_path / "a.html").read_text()
    assert len(order(tmp_path / "a.html")) == 4 and page.count('<div class="references">') == 3


def test_a_name_that_two_images_share_finds_no_reference(judged, tmp_path):
    two = {"8": ("train/one.jpg", ["this one"]), "9": ("val/one.jpg", ["or this"]), "2": ("two.jpg", ["snow"])}
    references = write_coco(tmp_path / "people.json", two)
    commands.gallery(captions=judged, output=str(tmp_path / "a.html"), references=references)
    words = Elements(tmp_path / "a.html").words
    assert "snow" in words and "this" not in words and "CIDEr" not in words
    with pytest.raises(InputError, match="--sort worst: expected references for at least two images"):
        commands.gallery(captions=judged, output=str(tmp_path / "a.html"), references=references, sort="worst")


def test_an_image_is_found_as_evaluation_finds_it(tmp_path, capsys):
    """COCO's name of another year finds its number; two rows of one image, and one that fits two, find nothing."""
    uris = {"COCO_val2014_000000000139": "", "7": "", "x/seven": "", "20": "/x/same.jpg"}
    rows = [{"image_id": image_id, "image_uri": uri, "caption": "a dog"} for image_id, uri in uris.items()]
    table = write_table(tmp_path / "rows", rows)
    names = {"139": "000000000139.jpg", "7": "seven.jpg", "20": "a/same.jpg", "21": "b/same.png"}
    references = write_coco(tmp_path / "people.json", {key: (name, [f"dog {key}"]) for key, name in names.items()})
    commands.gallery(captions=table, output=str(tmp_path / "a.html"), references=references)
    assert f"1 of 4 images have references in {references}\n" in capsys.readouterr().out
    predictions = [Prediction(image_id, "a dog", uri) for image_id, uri in uris.items()]
    found = match(predictions, read_references([references]), "rows")
    words = Elements(tmp_path / "a.html").words
    assert list(found.predictions) == [key for key in names if f"dog {key}" in words] == ["139"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "expected --output FILE.html, --contact_sheet FILE.png, --captioned_images DIR or --attention_pictures"),
        (
            ["--features", "x", "--output", "{tmp}/a.html"],
            "--captions, --features or --coco_dir: expected one of them, fo",
        ),
        (["--output", "{tmp}/a.html", "--split", "val"], "--split: expected --features beside it, found none"),
        (
            ["--attention_pictures", "{tmp}/a"],
            "--attention_pictures: expected a column attention in {tmp}/table, found",
        ),
        (
            ["--captioned_images", "{tmp}/other.json"],
            "--captioned_images: expected a directory that can be written to, f",
        ),
        (["--output", "{tmp}/a.html", "--sort", "worst"], "--sort worst: expected --references to compare"),
        (["--output", "{tmp}/a.html", "--references", "{tmp}/none"], "--references: expected captions as COCO or"),
        (["--output", "{tmp}/a.html", "--references", "{tmp}/other.json"], "it is of images such as '7'; match them"),
        (["--output", "{tmp}"], "--output: expected a .html file to write, found {tmp}: a directory"),
        (["--output", "{tmp}/no/a.html"], "--output: expected a .html file to write, found {tmp}/no/a.html: no such"),
        (["--output", "{tmp}/" + "a" * 240], "--output: expected a .html file to write, found {tmp}/aaa"),
        (["--contact_sheet", "{tmp}/a.txt"], "--contact_sheet: expected a .png file to write, found {tmp}/a.txt"),
        (["--output", "{tmp}/a.html", "--n", "0"], "--n: expected at least 1, found 0"),
        (["--output", "{tmp}/captions-0.parquet"], "--output: expected a .html file to write, found"),
        (["--output", "{tmp}/a.html", "--captions", "{tmp}"], "--captions: expected a directory that pipelines.capt"),
    ],
)
def test_mistakes_are_told_in_one_line(table, tmp_path, capsys, flags, message):
    write_coco(tmp_path / "other.json", {"7": ("seven.jpg", ["seven"])})
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SystemExit) as exit_:
        gallery.main(["--captions", table, *(flag.format(tmp=tmp_path) for flag in flags)])
    stderr = capsys.readouterr().err
    assert exit_.value.code == 2 and stderr.count("\n") == 1 and message.format(tmp=tmp_path) in stderr
    assert sorted(tmp_path.iterdir()) == before, "nothing is written"


# What is on the page.


def test_thumbnails_are_small_upright_and_read_from_zip_files(tmp_path):
    photo = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.new("RGB", (1500, 1000), "red").save(photo, "JPEG", exif=exif)
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("b/photo.jpg", photo.getvalue())
    small = write_image(tmp_path / "small.png", 20, 10)
    rows = [
        {"image_id": "1", "image_uri": f"{tmp_path}/photos.zip!/b/photo.jpg", "caption": "large"},
        {"image_id": "2", "image_uri": small, "caption": "small"},
    ]
    commands.gallery(captions=write_table(tmp_path / "table", rows), output=str(tmp_path / "a.html"))
    found = dict(Elements(tmp_path / "a.html").images)
    assert found["large"].size == (320, 480) and found["small"].size == (20, 10)
    np.testing.assert_allclose(np.asarray(found["large"])[100, 100], (255, 0, 0), atol=4)


def test_images_that_cannot_be_shown_say_why(tmp_path, monkeypatch, capsys):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.eps")  # would start another program
    write_image(tmp_path / "bomb.png", 200, 200)
    _, *others = images.Encoded.__init__.__defaults__
    monkeypatch.setattr(images.Encoded.__init__, "__defaults__", (10_000, *others))
    uris = [str(tmp_path / "a.eps"), str(tmp_path / "bomb.png"), "/nowhere/<b>.jpg", None, "\0", str(tmp_path)]
    rows = [{"image_id": str(k), "image_uri": uri, "caption": "c"} for k, uri in enumerate(uris)]
    commands.gallery(captions=write_table(tmp_path / "table", rows), output=str(tmp_path / "a.html"))
    assert "(6 could not be read from here, and are grey)" in capsys.readouterr().out
    page = Elements(tmp_path / "a.html")
    for reason in ("NotAnImage", "200 x 200 pixels", "no such file", "names no file", "null byte", "a directory"):
        assert reason in page.words, reason
    assert not page.images


def test_a_thumbnail_in_any_colours():
    for mode in ("RGBA", "L", "P", "CMYK", "I;16"):
        data = io.BytesIO()
        Image.new(mode, (500, 400)).save(data, "TIFF")
        shrunk = thumbnails.shrink(images.Encoded(data.getvalue(), 720))
        assert (shrunk.mode, shrunk.size) == ("RGB", (480, 384))


@given(st.text())
def test_all_text_is_escaped(text):
    found = gallery_page.text(text)
    assert not set(found) & set("<>\"'")
    signs = str.maketrans({chr(code): chr(0x2400 + code) for code in range(32) if chr(code) not in "\t\n\r"})
    assert html.unescape(found) == text.translate(signs).replace("\x7f", "\u2421")


def test_contact_sheet(tmp_path, capsys):
    uris = [write_image(tmp_path / "a.png"), str(tmp_path / "gone.png"), write_image(tmp_path / "c.png", 900, 300)]
    captions = ["a dog", None, "<b> \0 \n 🐕 " + "long" * 3000]
    rows = [
        {"image_id": str(k), "image_uri": uri, "caption": c}
        for k, (uri, c) in enumerate(zip(uris, captions, strict=True))
    ]
    rows[0]["log_prob"] = -1.5
    directory = write_table(tmp_path / "table", rows)
    commands.gallery(captions=directory, contact_sheet=str(tmp_path / "sheet.png"), sort="log_prob", columns=2)
    sheet = Image.open(tmp_path / "sheet.png")
    assert sheet.size == (2 * 252 + 12, 2 * 254 + 12)
    assert sheet.getpixel((12 + 120, 12 + 90)) == (0, 0, 128), "the navy photograph"
    assert sheet.getpixel((12 + 252 + 120, 12 + 90)) == (217, 217, 217), "grey for the one that is gone"
    assert "3 images with their captions in" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"--contact_sheet: expected a .png file to write, found .*/no/dir.png"):
        commands.gallery(captions=directory, contact_sheet=str(tmp_path / "no/dir.png"))


def test_contact_sheets_have_room_for_what_people_said(judged, tmp_path):
    drawn = []
    for name, people in (("a", None), ("b", PEOPLE), ("c", {key: (n, ["zebra"]) for key, (n, _) in PEOPLE.items()})):
        path = tmp_path / f"{name}.png"
        given = {"references": write_coco(tmp_path / f"{name}.json", people)} if people else {}
        commands.gallery(captions=judged, contact_sheet=str(path), **given)
        drawn.append(np.asarray(Image.open(path)))
    assert [picture.shape[0] for picture in drawn] == [266, 306, 306]
    assert not np.array_equal(drawn[1], drawn[2]), "another word is drawn"


# A picture of each.


def test_a_picture_of_each_photo(tmp_path, capsys):
    """With its caption under it; and a tile for each word: as it is, or coloured where the model looked."""
    uri = write_image(tmp_path / "a.png", 80, 80, "white")
    attention = [("a", [1 / 64] * 64), ("dog", at(0, 0)), ("", at(4, 0)), ("?", [0.5, 0.5])]
    row = {"image_uri": uri, "caption": "a dog", "log_prob": -1.5}
    row |= {"attention": [{"word": word, "weights": weights} for word, weights in attention]}
    rows = [{"image_id": "a", **row}, {"image_id": "../B", **row}, {"image_id": "gone", "image_uri": "/nowhere.jpg"}]
    each, looked = tmp_path / "each", tmp_path / "deep/looked"
    flags = {"captions": write_table(tmp_path / "table", rows), "captioned_images": str(each)}
    commands.gallery(**flags, attention_pictures=str(looked))
    assert f"2 pictures in {each}\n2 pictures in {looked}\n" in capsys.readouterr().out
    names = {path.name for path in each.iterdir()}
    assert names == {path.name for path in looked.iterdir()} == {"a.png", of_each.file_name("../B")}
    picture = np.asarray(Image.open(each / "a.png"))
    assert picture.shape[1] == 240 + 32 and (picture[16:96, 96:176] == 255).all()
    assert (picture[110:] < 128).any(), "text is below"
    tiles = np.asarray(Image.open(looked / "a.png")).astype(int)
    first, second = (tiles[45:125, left : left + 80] for left in (16, 16 + 88))
    assert (first == 255).all(), "an equal share is not seen"
    np.testing.assert_allclose(second[2, 2], 0.2 * 255 + 0.8 * np.array([252, 250, 160]), atol=6)
    assert (second[40:, 40:] == 255).all(), "no more than an equal share elsewhere"


@given(st.lists(st.floats(0, 1, width=32), max_size=30))
def test_weights_are_seen_on_one_scale(weights):
    found, count = looks.seen(weights), len(weights)
    if math.isqrt(count) ** 2 != count or not any(weights):
        assert found is None
    else:
        expected = [min(max((weight * count - 1) / 3, 0), 1) for weight in weights]
        np.testing.assert_allclose(found.ravel(), expected, atol=1e-9)


def test_weights_of_no_grid_are_none():
    for weights in (None, [], [1, 2], [math.nan] * 4, [None] * 4, [0.0] * 4):
        assert looks.seen(weights) is None
    assert looks.seen([0.25, 0.4375, 0.625, 1.0]).tolist() == [[0, 0.25], [0.5, 1]]


@given(st.lists(st.text(), unique=True))
def test_no_two_ids_share_a_file(ids):
    names = [of_each.file_name(one) for one in ids]
    assert len({name.lower() for name in names}) == len(ids)
    assert all(pathlib.PurePath(name).name == name and len(name) < 120 and not name.startswith(".") for name in names)


# Data sets with the captions of people.


def test_a_data_set_before_anything_is_trained(made_features, coco_dir, tmp_path):
    """From records, with the images where they were; and from COCO's own directory."""
    for name, flags in {
        "a": {"features": str(made_features), "split": "val"},
        "b": {"coco_dir": str(coco_dir)},
    }.items():
        page, each = tmp_path / f"{name}.html", tmp_path / name
        commands.gallery(**flags, output=str(page), captioned_images=str(each), n=3)
        shown = Elements(page)
        assert len(shown.images) == len(list(each.iterdir())) == 3
        for alt, _ in shown.images:
            assert alt.strip() and alt in people(coco_dir), "a caption of somebody's"
        assert page.read_text().count('<div class="references">') == 3, "and what else was said"


def people(coco_dir) -> set[str]:
    paths = pathlib.Path(coco_dir, "annotations").glob("captions_*.json")
    return {a["caption"] for path in paths for a in json.loads(path.read_text())["annotations"]}


def test_stored_images_are_shown_without_the_files(make_features, coco_dir, tmp_path):
    moved = shutil.copytree(coco_dir, tmp_path / "coco")
    directory, _ = make_features(coco_dir=moved, store_images=True)
    shutil.rmtree(moved)
    commands.gallery(features=str(directory), output=str(tmp_path / "a.html"), n=2)
    assert [image.size for _, image in Elements(tmp_path / "a.html").images] == [(96, 72)] * 2
    with pytest.raises(InputError, match=r"--split: expected train, val, found 'test' in --features"):
        commands.gallery(features=str(directory), output=str(tmp_path / "a.html"), split="test")


def test_everything_may_be_in_an_object_store(tmp_path, monkeypatch):
    monkeypatch.setattr(ShelfFileSystem, "root", str(tmp_path))
    write_image(tmp_path / "a.png")
    rows = [{"image_id": "1", "image_uri": f"{SHELF}a.png", "caption": "a dog"}]
    write_table(tmp_path / "table", rows)
    write_coco(tmp_path / "people.json", {"1": ("a.png", ["the dog of a person"])})
    places = {"captions": "table", "references": "people.json", "output": "out/a.html", "contact_sheet": "out/a.png"}
    places["captioned_images"] = "out/each"
    commands.gallery(**{flag: SHELF + path for flag, path in places.items()})
    page = Elements(tmp_path / "out/a.html")
    assert [alt for alt, _ in page.images] == ["a dog"] and "the dog of a person" in page.words
    assert Image.open(tmp_path / "out/a.png").size == (264, 306)
    assert Image.open(tmp_path / "out/each/1.png").width == 272
    assert len(list((tmp_path / "out").iterdir())) == 3, "nothing temporary is left"


# In a real browser, from a file.


@pytest.fixture(scope="module")
def chrome():
    with browser.started() as driver:
        yield driver


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> str:
    """A page of twelve captioned images, whose words say where the model looked, references beside them."""
    directory = tmp_path_factory.mktemp("page")
    rows = []
    for k in range(11):
        size = [(64, 48), (48, 64), (50, 50)][k % 3]
        uri = write_image(directory / f"{k}.png", *size, colour="white")
        word = ["dog", "cat"][k % 2]
        attention = [("a", at(0, 0)), (word, at(7, 7)), ("sleeps", [1 / 64] * 64), ("", at(4, 0))]
        rows.append(
            {
                "image_id": f"image{k}",
                "image_uri": uri,
                "height": size[1],
                "width": size[0],
                "caption": f"a {word} sleeps",
                "log_prob": -1.25 - k,
                "captions": [{"caption": f"a {word} sleeps", "log_prob": -1.25}, {"caption": "b", "log_prob": -9.5}],
                "attention": [{"word": text, "weights": weights} for text, weights in attention],
                "photographer": "Ada",
            }
        )
    rows.append({"image_id": "gone", "image_uri": "/nowhere/x.jpg", "caption": "a lost dog", "log_prob": -99.0})
    people = {str(k): (f"{k}.jpg", ["A dog is asleep", f"It is number {k}"]) for k in range(11)}
    output = directory / "gallery.html"
    commands.gallery(
        captions=write_table(directory / "my-captions", rows),
        output=str(output),
        sort="log_prob",
        references=write_coco(directory / "people.json", people),
    )
    return output.as_uri()


@pytest.fixture
def page(chrome, photographs):
    """The page, freshly opened at a desktop's size in light colours."""
    return opened(chrome, photographs)


def opened(chrome, uri: str):
    browser.set_window(chrome, 1280)
    browser.set_media(chrome, prefers_color_scheme="light", prefers_reduced_motion="reduce")
    chrome.get("about:blank")
    chrome.get_log("browser")
    chrome.get(uri)
    return chrome


def find(chrome, selector: str) -> list:
    return chrome.find_elements("css selector", selector)


def assert_fits(page, width: int) -> None:
    """Nothing is wider than the page, or cut off at the edge of a figure."""
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    script = "return [...document.querySelectorAll('figure')].filter((f) => f.scrollWidth > f.clientWidth).length"
    assert page.execute_script(script) == 0


def press(chrome, *keys: str) -> None:
    """Presses keys by their names, wherever the focus is."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    for key in keys:
        ActionChains(chrome).send_keys(getattr(Keys, key, key)).perform()


def test_nothing_leaves_the_page_and_nothing_goes_wrong(page):
    assert page.get_log("browser") == []
    assert all(
        name.startswith("data:")
        for name in page.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    )
    shown = page.execute_script("return [...document.images].map((i) => [i.alt, i.naturalWidth, i.complete])")
    assert len(shown) == 11 and all(complete and width > 0 for _, width, complete in shown)
    assert [alt for alt, _, _ in shown] == [f"a {['dog', 'cat'][k % 2]} sleeps" for k in range(11)]
    assert [e.text for e in find(page, ".caption")][:2] == ["a dog sleeps", "a cat sleeps"]
    assert page.title == "my-captions · captioned images"


def test_what_assistive_technology_is_told(page):
    found = browser.accessible(page)
    landmarks = {"banner", "main", "search"}
    assert landmarks <= {role for role, _ in found}
    for expected in (
        ("heading", "my-captions"),
        ("link", "Skip to the images"),
        ("searchbox", "Filter captions"),
        ("figure", "Image image0"),
        ("image", "a dog sleeps"),
        ("group", "Words of the caption"),
        ("button", "dog"),
    ):
        assert expected in found, expected
    assert any(role.startswith("Disclosure") and name == "Details of image0" for role, name in found)
    assert all(name for role, name in found if role in ("image", "button", "link", "searchbox", "figure"))
    assert page.execute_script("return document.documentElement.lang") == "en"
    press(page, "TAB", "ENTER")
    assert page.execute_script("return document.activeElement.id") == "images"


def test_the_facts_of_the_table_are_there(page):
    assert find(page, "header")[0].text.splitlines()[:3] == ["CAPTIONED IMAGES", "my-captions", "Images"]
    facts = dict(
        page.execute_script(
            "return [...document.querySelectorAll('.facts div')].map((d) => [...d.children].map((c) => c.textContent))"
        )
    )
    assert facts == {
        "Images": "12 of 12",
        "Order": "highest log probability first",
        "Model digest": "d1c105d2f07b",
        "Beam width": "3",
    }
    figure = find(page, "figure")[0]
    assert "log probability −1.25 · CIDEr " in figure.text and "It is number 0" in figure.text
    assert "Ada" not in figure.text
    figure.find_element("css selector", "summary").send_keys(" ")
    for expected in ("−9.50", "image0", "/0.png", "64 × 48 pixels", "photographer", "Ada"):
        assert expected in figure.text, expected
    assert "no such file" in find(page, "figure")[-1].text and not find(page, "figure:last-of-type button")


def canvas_alpha(page, x: float, y: float) -> int:
    """How opaque the first figure's overlay is at a place, in fractions of its size; -1 where it is not shown."""
    return page.execute_script(
        "const c = document.querySelector('canvas.shown'); if (!c) return -1;"
        "return c.getContext('2d').getImageData(arguments[0] * c.width, arguments[1] * c.height, 1, 1).data[3]",
        x,
        y,
    )


def test_words_show_where_the_model_looked(page):
    words = find(page, "figure:first-child button")
    assert [word.text for word in words] == ["a", "dog", "sleeps"], "the end of the caption is no word"
    told = lambda: find(page, "#looks")[0].get_property("textContent")  # noqa: E731
    before = find(page, ".photo")[0].screenshot_as_png
    words[0].click()
    assert (
        words[0].get_attribute("aria-pressed") == "true"
        and told() == "a: the model looks most at the upper left, largest weight 0.87"
    )
    assert canvas_alpha(page, 0.05, 0.05) > 180 and canvas_alpha(page, 0.9, 0.9) == 0, "no more than an equal share"
    assert [e.text for e in find(page, ".largest.shown")] == ["0.87"]
    assert "Full colour: 0.06 or more." in find(page, ".note")[0].text
    assert find(page, ".photo")[0].screenshot_as_png != before
    press(page, "ARROW_RIGHT")
    assert page.switch_to.active_element == words[1] and told().startswith(
        "dog: the model looks most at the lower right, "
    )
    assert canvas_alpha(page, 0.95, 0.95) > 180 and canvas_alpha(page, 0.1, 0.1) == 0
    press(page, "TAB")
    assert (
        page.switch_to.active_element == words[2]
        and told() == "sleeps: the model looks everywhere alike, largest weight 0.02"
    )
    assert canvas_alpha(page, 0.5, 0.5) == 0, "the photo stays as it is"
    press(page, "ARROW_RIGHT", "ARROW_LEFT", "ENTER")
    assert [word.get_attribute("aria-pressed") for word in words] == ["false", "true", "false"]
    press(page, "ESCAPE")
    assert canvas_alpha(page, 0.9, 0.9) == -1 and told() == ""
    assert {word.get_attribute("aria-pressed") for word in words} == {"false"}
    assert page.get_log("browser") == []


def test_pointing_at_a_word_shows_it_until_the_pointer_leaves(page):
    from selenium.webdriver.common.action_chains import ActionChains

    words = find(page, "figure:first-child button")
    words[0].click()
    ActionChains(page).move_to_element(words[1]).perform()
    assert canvas_alpha(page, 0.95, 0.95) > 180
    ActionChains(page).move_to_element(find(page, "h1")[0]).perform()
    assert canvas_alpha(page, 0.05, 0.05) > 180, "back to the word that is pressed"
    words[0].click()
    assert words[0].get_attribute("aria-pressed") == "false" and canvas_alpha(page, 0.1, 0.1) == -1


def test_the_filter(page):
    box, shown = find(page, "#filter")[0], find(page, "#shown")[0]
    assert shown.text == "12 of 12 shown"
    box.send_keys("  DOG ")
    assert shown.text == "7 of 12 shown"
    assert [f.is_displayed() for f in find(page, "figure")][:4] == [True, False, True, False]
    box.clear()
    box.send_keys("<")
    assert shown.text == "0 of 12 shown"
    press(page, "BACKSPACE")
    assert shown.text == "12 of 12 shown"


@pytest.mark.parametrize(("width", "columns"), [(375, {1}), (320, {1}), (1280, {3, 4, 5})])
def test_columns_for_the_width_and_no_sideways_scroll(page, width, columns):
    browser.set_window(page, width)
    page.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    lefts = page.execute_script(
        "return [...document.querySelectorAll('figure')].map((f) => f.getBoundingClientRect().left)"
    )
    assert len(set(lefts)) in columns
    assert_fits(page, width)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(page, scheme):
    browser.set_media(page, prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
    page.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    find(page, "figure:first-child button")[0].click()
    find(page, "figure:nth-child(2) button")[0].send_keys("")
    found = browser.contrasts(page)
    assert {"H1", "caption", "SPAN", "missing", "skip", "number", "DT", "note", "label"} <= set(found)
    assert min(found.values()) >= 4.5, found
    ground = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(244, 242, 237)", "dark": "rgb(19, 18, 17)"}[scheme]


def test_words_of_a_caption_that_is_written_otherwise(chrome, tmp_path):
    """A capital or a full stop stays on its button; where words do not fit, the caption stands above them."""
    uri = write_image(tmp_path / "a.png")
    looked = lambda words: [{"word": word, "weights": at(3, 3)} for word in words]  # noqa: E731
    rows = [
        {"caption": "A dog, asleep.", "attention": looked(["a", "dog", "asleep", ""])},
        {"caption": "A man's hat", "attention": looked(["a", "man", "'s", "hat"])},
        {"caption": "no grid", "attention": [{"word": w, "weights": [0.5, 0.5]} for w in ("no", "grid")]},
    ]
    rows = [{"image_id": str(k), "image_uri": uri, "log_prob": -float(k), **row} for k, row in enumerate(rows)]
    commands.gallery(
        captions=write_table(tmp_path / "table", rows), output=str(tmp_path / "a.html"), sort="log_prob", columns=1
    )
    page = opened(chrome, (tmp_path / "a.html").as_uri())
    assert [e.text for e in find(page, ".caption")] == [row["caption"] for row in rows]
    buttons = [[b.text for b in figure.find_elements("css selector", "button")] for figure in find(page, "figure")]
    assert buttons == [["A", "dog,", "asleep."], ["a", "man", "'s", "hat"], []]
    assert [e.text for e in find(page, ".words")] == ["a man 's hat"]


HOSTILE = [
    "<script>document.title = 'owned'</script>",
    "<img src=x onerror=\"document.title = 'owned'\">",
    "\"'><svg onload=alert(1)> &amp; &lt;b&gt; -->]]> </figcaption></figure></style></script>",
    "an emoji 🐕‍🦺, a tab\t, a line\nbreak, {braces} %s",
    "كلب يجري على العشب",
    "\u202eoverridden\u2066",
    "w" * 10_000,
    "\r\ncarriage",
    "",
]


def test_a_hostile_table_is_shown_word_for_word(chrome, tmp_path):
    uri = write_image(tmp_path / "a.png")
    fields = ("image_id", "caption", "note<script>")
    rows = [{**dict.fromkeys(fields, text), "image_uri": uri, "log_prob": -float(k)} for k, text in enumerate(HOSTILE)]
    for row, text in zip(rows, HOSTILE, strict=True):
        row["captions"] = [{"caption": text, "log_prob": -1.0}, None]
        row["attention"] = [{"word": text, "weights": at(1, 1)}, None]
    rows[1]["image_uri"] = HOSTILE[1]
    rows += [{"image_id": "zero\0byte", "caption": "zero\0byte", "image_uri": uri}, {"image_uri": uri}]
    directory = write_table(tmp_path / "a <b>'\" table", rows)
    commands.gallery(captions=directory, output=str(tmp_path / "a b#.html"), sort="log_prob")
    page = opened(chrome, (tmp_path / "a b#.html").as_uri())
    texts = lambda selector: page.execute_script(  # noqa: E731
        "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)", selector
    )
    shown = [*HOSTILE[:-1], "no caption", "zero\u2400byte", "no caption"]
    assert texts(".caption") == shown
    assert texts("ol span:first-child") == HOSTILE
    alternatives = page.execute_script("return [...document.images].map((image) => image.alt)")
    assert alternatives == [text for k, text in enumerate(shown) if k != 1]
    assert set(HOSTILE) <= set(texts("dd")) and "note<script>" in texts("dt")
    assert texts("h1") == ["a <b>'\" table"] and page.title.startswith("a <b>'\" table")
    assert page.get_log("browser") == [] and len(find(page, "script")) == 1 and not find(page, "svg")
    for width in (375, 1280):
        browser.set_window(page, width)
        page.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
        assert_fits(page, width)


def test_the_policy_stops_what_escaping_might_miss(chrome, photographs, tmp_path):
    """A script that did get into the page is not run, and no address is asked for."""
    path = tmp_path / "changed.html"
    planted = (
        "<script>document.title = 1</script><img src='https://example.invalid/x.png' onerror='document.title = 2'>"
    )
    page = pathlib.Path(photographs.removeprefix("file://")).read_text()
    path.write_text(page.replace("<figure ", f"{planted}<figure ", 1))
    opened(chrome, path.as_uri())
    assert chrome.title == "my-captions · captioned images"
    told = " ".join(entry["message"] for entry in chrome.get_log("browser"))
    assert "script-src" in told and "img-src" in told


# Tables that are not quite ours.

_OTHERS = {
    "text": pa.array(["a", "b"]),
    "whole": pa.array([1, 2]),
    "bytes": pa.array([b"\xff", b"\xff"]),
    "list": pa.array([["a"], ["b"]]),
    "struct": pa.array([{"caption": "a"}, {"caption": "b"}]),
    "structs": pa.array([[{"caption": 1, "log_prob": "x"}], [None]]),
    "words": pa.array([[{"word": 1, "weights": "x"}], None]),
    "categories": pa.array(["a", "b"]).dictionary_encode(),
    "time": pa.array([2**62, 0], pa.timestamp("us")),
}
_FITTING = {"image_id": "text", "image_uri": "text", "caption": "text", "height": "whole", "width": "whole"}
_FITTING |= {"log_prob": "whole"}


def change(table: str, change) -> None:
    """Rewrites the first file of a caption table."""
    path = next(iter(sorted(pathlib.Path(table).glob("*.parquet"))))
    pq.write_table(change(pq.read_table(path)), path)


@pytest.mark.parametrize("column", [*_TYPES])
def test_columns_of_other_types_are_refused(tmp_path, column):
    """But for numbers and texts of another width."""
    rows = [{"image_id": f"{k}", "caption": "x", "attention": [{"word": "x", "weights": [1.0]}]} for k in range(2)]
    for name, values in _OTHERS.items():
        table = write_table(tmp_path / f"{name}", rows)
        change(table, lambda old, values=values: old.set_column(old.schema.get_field_index(column), column, values))
        flags = {"captions": table, "output": str(tmp_path / "a.html"), "contact_sheet": str(tmp_path / "a.png")}
        if _FITTING.get(column) == name:
            commands.gallery(**flags)
            continue
        message = (
            rf"^--captions: {table}/captions-\S+: expected a caption table, found: column '{column}' of type .*; cap"
        )
        with pytest.raises(InputError, match=message) as error:
            commands.gallery(**flags)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("column", ["image_id", "caption", "captions", "log_prob"])
def test_columns_that_are_not_there_are_told_of(table, tmp_path, column):
    change(table, lambda old: old.drop_columns([column]))
    message = rf"^--captions: .*: expected a caption table, found: 0 columns '{column}'; caption again$"
    with pytest.raises(InputError, match=message):
        commands.gallery(captions=table, output=str(tmp_path / "a.html"))


def test_a_table_of_nothing_but_nulls_is_shown(tmp_path):
    table = write_table(tmp_path / "table", [{"image_id": "x", "further": None}] * 3)
    change(table, lambda old: pa.table({name: pa.nulls(3) for name in [*old.schema.names, "attention"]}))
    for sort in ("random", "log_prob"):
        flags = {"output": str(tmp_path / "a.html"), "contact_sheet": str(tmp_path / "a.png"), "sort": sort}
        commands.gallery(captions=table, **flags)
        assert (tmp_path / "a.html").read_text().count("<figure") == 3


def test_null_values_within_lists_are_shown(tmp_path):
    captions = [None, {"caption": None, "log_prob": -1.0}, {"caption": "x", "log_prob": None}]
    looked = [None, {"word": None, "weights": None}, {"word": "x", "weights": [None, 1.0, 2.0, 3.0]}]
    rows = [{"image_id": "x", "caption": "x", "captions": captions, "attention": looked}]
    commands.gallery(captions=write_table(tmp_path / "table", rows), output=str(tmp_path / "a.html"))
    assert (tmp_path / "a.html").read_text().count("<figure") == 1


@pytest.mark.parametrize("content", [b"", b"PAR1" + b"junk" * 100 + b"PAR1", b"x" * 1000])
def test_a_table_that_is_junk_is_refused(table, tmp_path, content):
    sorted(pathlib.Path(table).glob("*.parquet"))[-1].write_bytes(content)
    with pytest.raises(
        InputError, match=r"^--captions: .*: expected a caption table, found: .*; caption again$"
    ) as error:
        commands.gallery(captions=table, output=str(tmp_path / "a.html"))
    assert "\n" not in str(error.value)


def test_a_column_that_python_cannot_hold_is_told_of(table, tmp_path):
    change(table, lambda old: old.append_column("when", pa.array([2**62] * len(old), pa.timestamp("us"))))
    with pytest.raises(
        InputError, match=r"^--captions: .*: expected a caption table, found: date value out of range; cap"
    ):
        commands.gallery(captions=table, output=str(tmp_path / "a.html"))

"""Which files make a sample, and which of them is its image."""

from typing import NamedTuple

import pytest

from pipelines.sources.image_files import has_image_ending
from pipelines.storage.samples import Grouping, key_and_ending


class Part(NamedTuple):
    name: str
    data: bytes = b""
    kind: str = ""

    @property
    def size(self):
        return len(self.data)


def samples(*given, image=None, texts=()):
    parts = [one if isinstance(one, Part) else Part(one) for one in given]
    pairs = ((part, lambda count, part=part: part.data[:count]) for part in parts)
    return list(Grouping(has_image_ending, image, texts).samples(pairs))


def chosen(*given, **how):
    """(key, name of the image or what is wrong) of each sample."""
    return [(one.key, one.problem.error if one.problem else one.part.name) for one in samples(*given, **how)]


# As `base_plus_ext` of webdataset 0.2.111 has them, endings in lower case as its `group_by_keys`; None: passed over.
NAMES = {
    "a.jpg": ("a", "jpg"),
    "a.seg.png": ("a", "seg.png"),
    "d/a.JPG": ("d/a", "jpg"),
    "d.e/a.jpg": ("d.e/a", "jpg"),
    "__a.jpg": ("__a", "jpg"),
    "a.": ("a", ""),
    "a": None,
    "d.e/a": None,
    "._a.jpg": None,
    "__meta__/a.jpg": None,
    "__info__": None,
    "__MACOSX/a.jpg": None,
}


@pytest.mark.parametrize("name", NAMES)
def test_keys_and_endings(name):
    assert key_and_ending(name) == NAMES[name]


def test_files_of_a_name_that_stand_together_are_a_sample():
    given = ["./a.jpg", "a.txt", "a.json", Part("d/", b"", "a folder"), "d/b.txt", "._b.jpg", "d/b.jpg", "ab.jpg"]
    assert chosen(*given) == [("a", "./a.jpg"), ("d/b", "d/b.jpg"), ("ab", "ab.jpg")]
    assert chosen("a.jpg", "b.jpg", "a.txt") == [("a", "a.jpg"), ("b", "b.jpg"), ("a", "BadEntry")]
    assert chosen("a.jpg", "a.txt", "a.jpg", "a.txt") == [("a", "a.jpg"), ("a", "a.jpg")], "the first is not lost"


def test_which_file_is_the_image():
    assert chosen("a.jpg", "a.seg.png", "a.cls", "a.npy") == [("a", "a.jpg")]
    assert chosen("a.seg.png", "a.txt") == [("a", "a.seg.png")]
    assert chosen("a.jpg", "a.png") == [("a", "AmbiguousName")]
    assert chosen("a.jpg", "a.png", "b.png", "b.txt", image="PNG") == [("a", "a.png"), ("b", "b.png")]
    assert chosen("a.jpg", image="png") == [("a", "BadEntry")]


def test_an_image_may_have_any_ending():
    assert chosen("a.img", "a.txt", "a.json", "b.photo") == [("a", "a.img"), ("b", "b.photo")]
    assert chosen("a.txt", "a.json", "b.cls") == [("a", "BadEntry"), ("b", "BadEntry")]
    assert chosen("a.img", "a.raw") == [("a", "AmbiguousName")]
    assert chosen(Part("a.img"), Part("a.alt", b"said"), texts=["alt"]) == [("a", "a.img")]


def test_a_link_is_no_image():
    (one,) = samples(Part("a.jpg", kind="a link"), "a.txt")
    assert one.problem.args == ("list", "BadEntry", "its image is a link, not a file")


def test_only_texts_that_are_asked_for_are_read():
    def read(count):
        raise AssertionError("read")

    pairs = [(Part("a.jpg"), read), (Part("a.txt", b"x"), read), (Part("a.json", b"{}"), read)]
    assert [one.texts for one in Grouping(has_image_ending).samples(pairs)] == [{}]
    parts = [Part("a.jpg"), Part("a.txt", b"\xef\xbb\xbfsaid"), Part("a.json", b"{}")]
    assert [one.texts for one in samples(*parts, texts=["txt"])] == [{"txt": "said"}]
    assert [one.texts for one in samples(*parts, texts=["licence"])] == [{"json": "{}"}]


@pytest.mark.parametrize(
    ("part", "told"),
    [
        (Part("a.txt", b"\xff\xfe"), "its txt: expected UTF-8, found b'\\xff\\xfe'"),
        (Part("a.txt", b"x" * 1_048_577), "its txt: expected a text of at most 1,048,576 bytes, found 1,048,577"),
        (Part("a.txt", b"", "a link"), "its txt: expected a text of at most 1,048,576 bytes, found a link"),
    ],
)
def test_a_bad_text_is_a_fault_of_its_sample_alone(part, told):
    found = samples("a.jpg", part, "b.jpg", Part("b.txt", b"good"), texts=["txt"])
    assert [one.problem and one.problem.message for one in found] == [told, None] and found[1].texts == {"txt": "good"}

"""Which local files there are: as Python's own glob finds them, but that nothing is left out in silence."""

import contextlib
import glob
import os
import pathlib
import random
import shutil
import tempfile

import pytest

from pipelines.sources.captioned_images import CaptionedImages, CaptionFile
from pipelines.sources.image_sets import ImageSets
from tests.support.listing import listed
from tfrecords_schema.errors import InputError
from tfrecords_schema.storage import finding

NAMES = ["a", "b.jpg", "[x]", "c d", "é.jpg", ".hidden", "x*y", "b.png"]
PATTERNS = ["*", "*.jpg", "**", "**/*.jpg", "**.jpg", "*/*", "a/**", "*/b.jpg", "a/*/b.jpg", "[[]x]/*", ".*", "**/.*"]
PATTERNS += ["*/", "**/", "a//*.jpg", "./*", "a/../*.jpg", "b.jpg/*", "none/*", "?.jpg", "[!b]*", "**/a/*", "*/.hidden"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fill(directory: pathlib.Path, rng: random.Random, depth: int) -> None:
    for name in rng.sample(NAMES, 5):
        if depth and rng.random() < 0.5:
            (directory / name).mkdir()
            fill(directory / name, rng, depth - 1)
        else:
            (directory / name).touch()


@pytest.mark.parametrize("seed", range(4))
def test_patterns_find_what_pythons_glob_finds(here, seed):
    fill(here, random.Random(seed), 3)
    (here / "broken.jpg").symlink_to("nowhere")
    (here / "circle.jpg").symlink_to("circle.jpg")
    found = 0
    for pattern in PATTERNS + [f"{here}/{pattern}" for pattern in PATTERNS]:
        python = glob.glob(pattern.replace("**.jpg", "**/*.jpg"), recursive=True)
        expected = {os.path.normpath(path) for path in python if path[-1] != "/" and not os.path.isdir(path)}
        assert {os.path.normpath(path) for path in finding.glob(pattern)} == expected, pattern
        found += len(expected)
    assert found > 100


@contextlib.contextmanager
def nobody():
    """As a user who may not enter everything, as root may; others are such users already."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@pytest.fixture
def place():
    """A directory that anybody may enter, with one below it; pytest's own are of one user."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        for name in ("open", "closed", "closed/below"):
            os.mkdir(f"{directory}/{name}")
        for name in ("open/a.jpg", "closed/b.jpg", "closed/below/c.jpg"):
            pathlib.Path(directory, name).touch()
        yield directory


@pytest.mark.parametrize(
    ("mode", "within", "closed"),
    [(0o000, "", "closed"), (0o444, "", "closed/below"), (0o000, "/**/*.jpg", "closed"), (0o000, "/*/*.jpg", "closed")],
)
def test_a_directory_that_may_not_be_entered_is_told_of(place, mode, within, closed):
    if mode == 0o444:  # its names can be listed, but nothing in it reached
        os.remove(f"{place}/closed/b.jpg")
    os.chmod(f"{place}/closed", mode)
    message = (
        rf"^--images: {place}/{closed}: expected a directory that can be listed, found: Permission denied; make it "
    )
    with nobody(), pytest.raises(InputError, match=message):
        listed(ImageSets((place + within,)))
    os.chmod(f"{place}/closed", 0o755)
    with nobody():
        assert len(listed(ImageSets((place + within,)))) >= 2


def test_captions_are_not_looked_up_where_nobody_may_look(place, tmp_path):
    path = pathlib.Path(place, "t.csv")
    path.write_text("image,caption\na.jpg,x\nb.jpg,y\n")
    os.chmod(f"{place}/closed", 0)
    message = rf"^--images: {place}/closed: expected a directory that can be listed"
    with nobody(), pytest.raises(InputError, match=message):
        listed(CaptionedImages((CaptionFile(str(path), (f"{place}/**/*.jpg",)),)))


def test_a_directory_whose_path_is_too_long_is_told_of(here):
    """Made step by step, as no call takes the whole of its path."""
    name = "d" * 250
    for _ in range(17):
        os.mkdir(name)
        os.chdir(name)
    pathlib.Path("a.jpg").touch()
    os.chdir(here)
    with pytest.raises(InputError, match="expected a directory that can be listed, found: File name too long; make it"):
        listed(ImageSets((str(here),)))


def test_a_directory_that_vanishes_is_told_of(here, monkeypatch):
    for name in ("a", "gone"):
        (here / name).mkdir()
        (here / name / "x.jpg").touch()
    real = os.path.realpath

    def realpath(path, **more):
        if os.path.basename(path) == "gone":  # it was seen in the directory above, and is to be listed
            shutil.rmtree(path)
        return real(path, **more)

    monkeypatch.setattr(os.path, "realpath", realpath)
    with pytest.raises(
        InputError, match=rf"^--images: {here}/gone: expected .* found: No such file or directory; make"
    ):
        listed(ImageSets((str(here),)))

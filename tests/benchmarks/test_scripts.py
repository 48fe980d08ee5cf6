"""The benchmarks that start whole commands, with tiny numbers."""

import re
import subprocess
import sys

import pytest

from benchmarks.photo import make_export
from benchmarks.support.seeded import write_weights
from tests.support import ROOT


def run(name: str, *flags: str) -> str:
    """What a benchmark prints."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *flags]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout


def cells(table: str, name: str) -> list[str]:
    (row,) = re.findall(rf"^\| {re.escape(name)} \|(.*)\|$", table, re.MULTILINE)
    return [cell.strip() for cell in row.split("|")]


@pytest.fixture(scope="module")
def export(tmp_path_factory) -> str:
    """What those make for themselves that are given no model."""
    directory = tmp_path_factory.mktemp("model")
    write_weights("inception_v3", f"{directory}/seeded.weights.h5")
    return make_export("inception_v3", f"{directory}/seeded.weights.h5", directory)


@pytest.mark.slow
def test_scale(tmp_path):
    """All images are new in the first run and kept by the second, or it ends with a message."""
    flags = ("--first", "20", "--images", "60", "--pipelines", "caption", "--scratch", str(tmp_path))
    told = run("scale", *flags)
    assert re.findall(r"^\| `caption` \| (\d+) \|", told, re.MULTILINE) == ["20", "60"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images-20", "images-60", "networks"]


@pytest.mark.slow
def test_peers():
    told = run(
        "peers", "--only", "ours", "--count", "64", "--rounds", "1"
    )  # three bad ones are below --max_reject_fraction
    speed, bad, killed = told.strip().split("\n\n")[1:]
    assert cells(speed, "ours")[-1] == "1.0000"
    assert re.search(r"exit status 0; 61 of 61 good images; rejects: .*empty.jpg Empty", cells(bad, "ours")[0])
    assert cells(killed, "ours")[-1] == "64 once"


@pytest.mark.slow
def test_photo(export):
    """Both say something of the photo, or it ends with a message; the memory is that of the same two models."""
    told = run("photo", "--model", export, "--rounds", "1")
    assert cells(told, "plain script")[0].endswith("(1.00)")
    for way in ("**`pipelines.caption PHOTO`**", "**`pipelines.load(…)(PHOTO)`**"):
        assert float(re.search(r"\((.*)\)", cells(told, way)[2])[1]) < 2


@pytest.mark.slow
def test_serve(export):
    """Every answer has the captions of the batch job, hostile clients are answered as they should be."""
    sizes = ("--count", "16", "--alone", "2", "--rounds", "1", "--clients", "4", "--requests", "60", "--hostile", "0.2")
    told = run("serve", "--model", export, *sizes)
    assert re.search(r"^4 clients over the batch job, images/s: [\d.]+; ", told, re.MULTILINE)
    assert "answered otherwise than they should have been: 0\n" in told
    assert told.endswith("after SIGTERM the service ended with exit status 0\n")


@pytest.mark.slow
def test_requests():
    """An image costs one request, whether it is one of many or not; a rerun asks for none."""
    told = run("requests")
    rows = re.findall(r"^\| `(\w+)` \| GET \| (-?[\d.]+) \|.*?\|.*?\| (-?[\d.]+) \|", told, re.MULTILINE)
    assert rows == [("features", "1.00", "0.00"), ("caption", "1.00", "0.00")]


@pytest.mark.slow
def test_archives():
    """A shard's images are from few of thirty files, where a hash takes them from all."""
    told = run("archives", "--archives", "30", "--members", "1000")
    rows = re.findall(r"^\| (as listed|by a hash) \| ([\d,]+) \| (\d+) \| (\d+) \| [\d.]+ \|$", told, re.MULTILINE)
    assert [name for name, *_ in rows] == ["as listed"] * 2 + ["by a hash"] * 2
    for name, images, archives, directories in rows:
        count = 30 if name == "by a hash" else int(images.replace(",", "")) // 1000
        assert int(archives) == count and int(directories) <= count

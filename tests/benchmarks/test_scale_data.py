"""The images of benchmarks/scale.py."""

import io
import zipfile

import pyarrow.parquet as pq
from PIL import Image

from benchmarks.support import scale_data


def test_no_two_images_are_the_same():
    """One of each kind of difference: the scene, how far it is moved down and to the right, how bright it is."""
    down, right = 64, 64 * scale_data.HEIGHT
    brighter = right * scale_data.WIDTH
    numbers = [0, 1, down, 2 * down, right, right + down, brighter, 5 * brighter + 1, 999_999]
    drawn = [scale_data.draw(number) for number in numbers]
    assert len(set(drawn)) == len(numbers)
    assert [Image.open(io.BytesIO(data)).size for data in drawn] == [(64, 48)] * len(numbers)
    assert scale_data.draw(3) == scale_data.draw(3)


def test_the_same_images_in_both_kinds_of_files(tmp_path, monkeypatch):
    monkeypatch.setattr(scale_data, "TOGETHER", 3)
    for folder in ("zip", "parquet"):
        (tmp_path / folder).mkdir()
    for first in (0, 3):
        scale_data.write_file(str(tmp_path), 5, first)
    wanted = {f"image-{number:09d}.jpg": scale_data.draw(number) for number in range(5)}
    found = {}
    for path in (tmp_path / "zip").iterdir():
        with zipfile.ZipFile(path) as file:
            found |= {name: file.read(name) for name in file.namelist()}
    assert found == wanted
    rows = pq.read_table(tmp_path / "parquet").to_pylist()
    assert {row["name"]: row["image"]["bytes"] for row in rows} == wanted

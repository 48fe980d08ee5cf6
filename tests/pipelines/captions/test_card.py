"""A caption table, loaded by Hugging Face's own code as it is; and whose README.md it is."""

import json
import pathlib
import re
import shutil

import datasets
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard

from tests.support.outputs import rows


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No hub, and a cache of its own."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def images(coco_dir, tmp_path) -> pathlib.Path:
    """A directory of eight images."""
    return shutil.copytree(coco_dir / "val2017", tmp_path / "images")


def test_the_directory_is_a_data_set(run, images):
    """Also beside other formats, with a file that has no rows, and after a rerun that gives files other names."""
    flags = {
        "images": [str(images)],
        "rows_per_file": 1,
        "max_reject_fraction": 0.5,
        "format": ["jsonl", "csv", "coco"],
    }
    output, _ = run(**flags)
    assert datasets.get_dataset_config_names(str(output)) == ["captions"]  # a table without rows would be refused
    assert len(datasets.load_dataset(str(output), split="train")) == 8
    assert 0 in [pq.read_metadata(path).num_rows for path in output.glob("captions-*.parquet")]
    (images / "bad.jpg").write_text("no image")
    run(**flags)
    assert [path.name for path in (output / "rejects").iterdir()] == ["captions-b.parquet"]
    assert datasets.get_dataset_config_names(str(output)) == ["captions", "rejects"]
    found = datasets.load_dataset(str(output))
    assert list(found) == ["train"] and found["train"].column_names[:2] == ["image_id", "image_uri"]
    assert {row["image_id"]: row for row in found["train"]} == rows(output)
    (reject,) = datasets.load_dataset(str(output), "rejects", split="train")
    assert reject["image_id"] == "bad" and reject["error"] == "NotAnImage"


def test_the_card_says_what_the_report_says(run, images, export_dir):
    (images / "bad.jpg").write_text("no image")
    flags = {"word_scores": True, "beam_width": 4, "prefix": "a"}
    output, report = run(images=[str(images)], max_reject_fraction=0.5, **flags)
    text = (output / "README.md").read_text()
    loaded = DatasetCard.load(output / "README.md")  # which the Hub reads too
    assert [config["config_name"] for config in loaded.data.to_dict()["configs"]] == ["captions", "rejects"]
    assert loaded.data.license is None and "\n# license: " in text
    assert f"| images | {report['inputs']} = {report['records']} with captions + {report['rejects']} rejected |" in text
    assert f"| captions | {report['captions']} |" in text
    digest = json.loads(pathlib.Path(export_dir, "model_info.json").read_text())["digest"]
    assert f"`{digest}`" in text and "beam_width 4, " in text and ", prefix a" in text
    columns = re.findall(r"^\| `(\w+)` \| \S.* \| \w.* \|$", text, re.M)
    assert columns == list(next(iter(rows(output).values())))
    assert export_dir not in text and str(images) not in text


@pytest.mark.parametrize("edit", [lambda text: text.replace("# license: cc", "license: cc"), lambda text: "mine"])
def test_a_card_that_somebody_changed_is_left(run, images, edit):
    output, _ = run(images=[str(images)])
    path = output / "README.md"
    before = path.read_text()
    path.write_text(edit(before))
    changed = path.read_bytes()
    (images / "bad.jpg").write_text("no image")
    run(images=[str(images)], max_reject_fraction=0.5)
    assert path.read_bytes() == changed != before.encode()
    path.unlink()
    run(images=[str(images)], max_reject_fraction=0.5)
    assert " 9 = 8 with captions + 1 rejected " in path.read_text() and " 8 = 8 " in before


def test_a_card_that_was_there_first_is_left(run, tmp_path):
    (tmp_path / "captions").mkdir()
    (tmp_path / "captions/README.md").write_bytes(b"\xffmine")
    output, _ = run()
    run(overwrite=True)
    assert (output / "README.md").read_bytes() == b"\xffmine"

"""Models whose files are damaged or others': refused before anything is computed or written, in one line."""

import pathlib
import re
import shutil

import pytest

from pipelines import caption
from pipelines.captions.captioner import Captioner
from tests.support.outputs import replace
from tests.support.small import TINY
from tfrecords_schema.errors import InputError
from trainer import export

GRAPH, INDEX, DATA = "saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"


def cut(path: pathlib.Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])


def flip(path: pathlib.Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "an empty graph": (lambda d: cut(d / GRAPH, 0), "expected a SavedModel with the signature caption, found none"),
    "a junk graph": (lambda d: (d / GRAPH).write_bytes(b"junk" * 99), "expected a whole SavedModel, found .*model.pb"),
    "a graph cut short": (lambda d: cut(d / GRAPH, 0.9), "expected a whole SavedModel, found .*saved_model.pb"),
    "a graph that is a directory": (lambda d: (d / GRAPH).unlink() or (d / GRAPH).mkdir(), "Is a directory"),
    "a junk index": (lambda d: (d / INDEX).write_bytes(b"junk"), "variables.index: expected the weights of a model"),
    "no index": (lambda d: (d / INDEX).unlink(), "variables.index: expected the weights of a model"),
    "junk weights": (lambda d: (d / DATA).write_bytes(b"junk"), "variables.index: expected the weights of a model"),
    "weights cut short": (lambda d: cut(d / DATA, 0.5), "variables.index: expected the weights of a model"),
    "a flipped bit": (lambda d: flip(d / DATA), "variables.index: expected the weights of a model"),
    "no weights": (lambda d: (d / DATA).unlink(), "variables.index: expected the weights of a model"),
    "other settings": (
        lambda d: replace(d / "model_info.json", '"units": 16', '"units": 60000'),
        "expected the weights that model_info.json names, found others",
    ),
}


@pytest.fixture
def refused(export_dir, trained, coco_dir, tmp_path, capsys):
    """A function that captions images or stored features with the model, and gives the line that refuses it."""

    def run(kind: str) -> str:
        given = {"images": str(coco_dir / "val2017"), "features": str(trained / "features")}[kind]
        with pytest.raises(SystemExit) as exit_:
            caption.main([f"--{kind}", given, "--model", export_dir, "--output", str(tmp_path / "out")])
        told = capsys.readouterr().err
        assert exit_.value.code == 2 and told.startswith("error: --model: ") and told.count("\n") == 1, told
        assert "again" in told and not (tmp_path / "out").exists()
        return told

    return run


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_model_is_refused(damage, refused, export_dir):
    break_it, expected = DAMAGES[damage]
    break_it(pathlib.Path(export_dir))
    told = refused("features")
    assert re.search(expected, told), told


@pytest.mark.slow
def test_a_saved_model_of_another_kind_is_refused(refused, export_dir, attentive, tmp_path):
    """Without our signatures, and with them but for features of another shape."""
    TINY.build(None).export(str(tmp_path / "net"), verbose=False)
    for saved, expected in (
        (tmp_path / "net", "expected a SavedModel with the signature caption, found .*serving_default"),
        (attentive / "job/export", r"expected caption to take features \[batch, 48\], found \[None, 16, 3\]"),
    ):
        for name in (GRAPH, "fingerprint.pb"):
            shutil.copy(saved / name, export_dir)
        shutil.copytree(saved / "variables", pathlib.Path(export_dir, "variables"), dirs_exist_ok=True)
        for kind in ("images", "features"):
            told = refused(kind)
            assert re.search(expected, told), told


def test_an_ensemble_of_a_model_of_other_settings_is_refused(export_dir, trained, tmp_path, capsys):
    """Before a decoder of these sizes is built, which no memory would hold."""
    replace(pathlib.Path(export_dir, "model_info.json"), '"units": 16', '"units": 60000')
    with pytest.raises(SystemExit) as exit_:
        members = [str(trained / "job/export"), export_dir]
        export.main(["--ensemble", *members, "--output", str(tmp_path / "both")])
    assert exit_.value.code == 2 and "expected the weights that model_info.json names" in capsys.readouterr().err


def test_a_model_that_breaks_after_the_start_is_told_as_well(run, export_dir, monkeypatch):
    """By the worker that loads it."""
    load = Captioner.load

    def breaks_first(self):
        pathlib.Path(export_dir, INDEX).write_bytes(b"junk")
        return load(self)

    monkeypatch.setattr(Captioner, "load", breaks_first)
    with pytest.raises(InputError, match=r"^--model: .*expected a whole SavedModel, found: .*; make it again$"):
        run()

"""The extractor's weights travel with what was made with them: images to captions after the given file is gone."""

import json
import os
import pathlib
import shutil

import numpy as np
import pytest

from pipelines import caption
from tests.support import commands, weighed
from tests.support.killed import Local, killed_at
from tests.support.outputs import content, edit_json, read_split, rows
from tests.support.shelf import SHELF, ShelfFileSystem
from tests.support.small import train_without_java, write_features
from tfrecords_schema.errors import InputError
from tfrecords_schema.networks import registry
from tfrecords_schema.storage import carried, copies, files
from trainer import task

KINDS = {"file": "mine.weights.h5", "SavedModel": "mine"}


@pytest.fixture(scope="module", autouse=True)
def network():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.NETWORKS, weighed.NAME, weighed.NETWORK)
        yield


def given(path: str) -> dict:
    """The flags of the feature pipeline."""
    if path.endswith(".h5"):
        return {"extractor": weighed.NAME, "weights": path}
    return {"extractor": f"saved_model:{path}", "weights": "imagenet"}


@pytest.fixture(scope="module")
def made(once, coco_dir):
    """A function: kind of weights -> `features/` and `job/`, made of weights that are deleted in between; read only."""

    def make(directory: pathlib.Path, kind: str) -> None:
        path = weighed.save(directory / KINDS[kind], 0.25, 0.5, 1.0)
        write_features(directory / "features", coco_dir=coco_dir, **given(path))
        os.rename(path, directory / f"given-{KINDS[kind]}")
        train_without_java(directory / "features", directory / "job", epochs=1)

    return lambda kind: once(f"carried {kind}", lambda directory: make(directory, kind))


@pytest.fixture
def own(made, tmp_path):
    """A copy of what was made with a file, to be broken."""
    return pathlib.Path(shutil.copytree(made("file"), tmp_path / "own"))


def named(directory: pathlib.Path, info: str) -> pathlib.Path:
    return directory / json.loads((directory / info).read_text())["extractor"]


def bytes_below(path: pathlib.Path) -> dict[str, bytes]:
    return content(path) if path.is_dir() else {"": path.read_bytes()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["file", "SavedModel"])
def test_a_model_captions_alone(made, coco_dir, tmp_path, kind, monkeypatch):
    """The captions of images equal those of the features that were stored when the given weights were still there."""
    root, images = made(kind), [f"{coco_dir}/val2017"]
    for directory, info in ((root / "features", "features_info.json"), (root / "job/export", "model_info.json")):
        assert bytes_below(named(directory, info)) == bytes_below(root / f"given-{KINDS[kind]}")
        digest = json.loads((directory / info).read_text())["features"]["weights_digest"]
        assert named(directory, info).name.startswith(digest[:16])
    model = str(shutil.copytree(root / "job/export", tmp_path / "only/export"))
    monkeypatch.chdir(tmp_path)
    commands.caption(images=images, model=model, output="of images")
    commands.caption(features=str(root / "features"), split="val", model=model, output="of features")
    found, expected = rows(tmp_path / "of images"), rows(tmp_path / "of features")
    by_number = {int(name): row for name, row in found.items()}
    assert len(found) == len(expected) == 8
    for name, row in expected.items():
        assert by_number[int(name)]["caption"] == row["caption"]
        np.testing.assert_allclose(by_number[int(name)]["log_prob"], row["log_prob"], atol=1e-2)  # stored as float16
    given_again = str(root / f"given-{KINDS[kind]}")
    commands.caption(images=images, model=model, output="of given", weights=given_again)
    assert [r["log_prob"] for r in rows(tmp_path / "of given").values()] == [r["log_prob"] for r in found.values()]


def test_what_is_told_next_needs_no_weights(own, capsys):
    task.main(["--data", str(own / "features"), "--job_dir", str(own / "job"), *_SMALL])
    assert capsys.readouterr().out.splitlines()[-1].startswith("next        python -m pipelines.caption --images ")


_SMALL = ("--units=16", "--embedding_dim=16", "--batch_size=8", "--epochs=1", "--learning_rate=0.02", "--patience=99")
_SMALL += ("--embedding_dropout=0", "--output_dropout=0")


def test_a_rerun_copies_nothing_and_other_weights_replace_them(own, coco_dir):
    features, path = own / "features", str(own / f"given-{KINDS['file']}")
    write_features(features, coco_dir=coco_dir, **given(path))  # which is told as a label
    before, carried_before = content(features), named(features, "features_info.json")
    values = [record["image/feature"].reshape(16, 3) for record in read_split(features, "val")]
    stamp = carried_before.stat()
    report = write_features(features, coco_dir=coco_dir, **given(path))
    assert report["shards_left"] == report["shards"] and content(features) == before
    assert (carried_before.stat().st_ino, carried_before.stat().st_mtime_ns) == (stamp.st_ino, stamp.st_mtime_ns)

    carried_before.write_bytes(b"damaged")
    write_features(features, coco_dir=coco_dir, **given(path))
    assert content(features) == before, "what is not whole is put there again"

    other = weighed.save(own / "other.weights.h5", 1, 1, 1)
    with pytest.raises(InputError, match=r"made with other options \(feature_weights_digest was"):
        write_features(features, coco_dir=coco_dir, **given(other))
    assert content(features) == before
    write_features(features, coco_dir=coco_dir, overwrite=True, **given(weighed.save(own / "net", 1, 1, 1)))
    now = named(features, "features_info.json")
    assert now.is_dir() and os.listdir(features / "extractor") == [now.name]
    write_features(features, coco_dir=coco_dir, overwrite=True, **given(other))
    unweighed = [record["image/feature"].reshape(16, 3) for record in read_split(features, "val")]
    np.testing.assert_allclose(values, unweighed * np.array([0.25, 0.5, 1.0]), atol=1e-3)
    assert os.listdir(features / "extractor") == [named(features, "features_info.json").name], "no empty folder either"
    write_features(features, coco_dir=coco_dir, overwrite=True, extractor=weighed.NAME, weights="random")
    assert not (features / "extractor").exists()


def test_a_directory_without_weights_gets_them_by_a_rerun(own, coco_dir):
    features, flags = own / "features", given(str(own / f"given-{KINDS['file']}"))
    write_features(features, coco_dir=coco_dir, **flags)
    before = content(features)
    edit_json(features / "features_info.json", lambda info: info.pop("extractor"))
    shutil.rmtree(features / "extractor")
    report = write_features(features, coco_dir=coco_dir, **flags)
    assert report["shards_left"] == report["shards"] and content(features) == before


def test_exports_of_earlier_versions_look_for_weights_where_they_were(own, coco_dir, tmp_path):
    model = own / "job/export"
    edit_json(model / "model_info.json", lambda info: info.pop("extractor"))
    flags = {"images": [f"{coco_dir}/val2017"], "model": str(model), "output": str(tmp_path / "captions")}
    with pytest.raises(InputError, match=r"^--weights: expected the file '.*mine.weights.h5' .*give --weights FILE$"):
        commands.caption(**flags)
    assert commands.caption(**flags, weights=str(own / f"given-{KINDS['file']}"))["records"] == 8


DAMAGE = {
    "missing": (lambda path: path.unlink(), "found none"),
    "cut short": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "found others, "),
    "a flipped bit": (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\xff"), "found others, "),
    "swapped": (lambda path: weighed.save(path, 1, 1, 1), "found others, "),
    "a directory": (lambda path: (path.unlink(), path.mkdir()), "found others, "),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_weights_are_told_in_one_line(own, coco_dir, tmp_path, capsys, damage):
    break_it, found = DAMAGE[damage]
    model = own / "job/export"
    for directory, info in ((model, "model_info.json"), (own / "features", "features_info.json")):
        break_it(named(directory, info))
    flags = ["--images", f"{coco_dir}/val2017", "--model", str(model), "--output", str(tmp_path / "out")]
    for main, arguments, flag in (
        (caption.main, flags, "--model"),
        (task.main, ["--data", str(own / "features"), "--job_dir", str(tmp_path / "new")], "--data"),
    ):
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        stderr = capsys.readouterr().err
        assert exit_.value.code == 2 and stderr.startswith(f"error: {flag}: ") and stderr.count("\n") == 1
        assert "expected the weights of digest" in stderr and found in stderr
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob("new/*"))


@pytest.mark.parametrize("name", ["../x", "/x", "extractor/../../x", "extractor/" + "0" * 16, "vocabulary.txt"])
def test_names_of_weights_lead_nowhere_else(own, name):
    for directory, info in ((own / "features", "features_info.json"), (own / "job/export", "model_info.json")):
        edit_json(directory / info, lambda values: values.update(extractor=name))
    with pytest.raises(InputError, match=r"features_info\.json: extractor: expected extractor/ and the weights'"):
        commands.task(data=str(own / "features"), job_dir=str(own / "new"))
    with pytest.raises(InputError, match=r"model_info\.json: extractor: expected extractor/ and the weights'"):
        commands.caption(images=["x.jpg"], model=str(own / "job/export"), output=str(own / "captions"))


@pytest.mark.parametrize("link", ["extractor", "extractor/{name}"])
def test_links_in_place_of_folders_are_not_followed(own, coco_dir, tmp_path, link):
    path = weighed.save(own / "net", 1, 1, 1)
    output, elsewhere = tmp_path / "output", tmp_path / "elsewhere"
    elsewhere.mkdir()
    place = output / link.format(name=carried.digest_of(path)[:16])
    place.parent.mkdir(parents=True)
    place.symlink_to(elsewhere)
    with pytest.raises(InputError, match="to be a directory, found a link, which is not followed"):
        write_features(output, coco_dir=coco_dir, **given(path))
    assert not list(elsewhere.iterdir())


def test_an_ensemble_carries_the_weights_of_its_members(own, coco_dir, tmp_path):
    one, two = own / "job/export", shutil.copytree(own / "job/export", own / "two")
    edit_json(one / "model_info.json", lambda info: info.pop("extractor"))  # of an earlier version
    commands.export(ensemble=[str(one), str(two)], output=str(tmp_path / "all"))
    shutil.rmtree(own)
    assert named(tmp_path / "all", "model_info.json").is_file()
    flags = {"images": [f"{coco_dir}/val2017"], "model": str(tmp_path / "all"), "output": str(tmp_path / "captions")}
    assert commands.caption(**flags)["records"] == 8


def test_weights_of_a_remote_model_are_copied_once_for_this_machine(own, coco_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(ShelfFileSystem, "root", str(own))
    monkeypatch.setattr(copies.tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    opened = []
    open_binary = files.open_binary
    monkeypatch.setattr(files, "open_binary", lambda path: (opened.append(path), open_binary(path))[1])
    flags = {"images": [f"{coco_dir}/val2017"], "model": f"{SHELF}job/export"}
    for output in ("one", "two"):
        assert commands.caption(output=str(tmp_path / output), **flags)["records"] == 8
    name = str(named(own / "job/export", "model_info.json").relative_to(own))
    assert [path for path in opened if path.startswith(SHELF) and "/extractor/" in path] == [f"{SHELF}{name}"]
    assert not list((tmp_path / "temporary").rglob("extractor")), "the copy of the model leaves them out"
    files.write_text(str(own), name, "swapped")
    shutil.rmtree(tmp_path / "temporary")
    (tmp_path / "temporary").mkdir()
    with pytest.raises(InputError, match=rf"--model: {SHELF}{name}: expected the weights of digest .*, found others"):
        commands.caption(output=str(tmp_path / "three"), **flags)


@pytest.mark.parametrize("kind", KINDS)
def test_names_appear_when_weights_are_whole_however_the_copying_ends(tmp_path, kind):
    """Killed at each change of the file system, by `put` into an output and by `bring` into an export."""
    parts = {"SavedModel": ["mine/saved_model.pb", "mine/variables/variables.index", "mine/x"]}.get(kind, [KINDS[kind]])
    for number, part in enumerate(parts):
        (tmp_path / part).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / part).write_bytes(b"any bytes" * number)
    path = str(tmp_path / KINDS[kind])
    expected, digest = bytes_below(pathlib.Path(path)), carried.digest_of(path)
    name = carried.name_of(path, digest)

    def put() -> None:
        carried.put(path, str(tmp_path / "output"), name)

    def bring() -> None:
        carried.bring(path, str(tmp_path / "output" / name), digest, "x", "y")

    for copy in (put, bring):
        _, changes = killed_at(Local(tmp_path), 0, copy)
        assert changes > 2
        for change in range(1, changes + 1):
            shutil.rmtree(tmp_path / "output", ignore_errors=True)
            assert killed_at(Local(tmp_path), change, copy)[0]
            there = bytes_below(tmp_path / "output" / name) if (tmp_path / "output" / name).exists() else {}
            assert there.items() <= expected.items() and (copy is put or not there or there == expected)
            copy()
            assert bytes_below(tmp_path / "output" / name) == expected
        shutil.rmtree(tmp_path / "output")

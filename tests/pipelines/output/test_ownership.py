"""Outputs that others can write to: nothing outside is read, written or deleted, and nothing of others inside."""

import json
import os
import pathlib
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.output import lifecycle, sidecars
from pipelines.output.names import Names
from pipelines.output.report import read_report
from tests.support.outputs import content, edit_json
from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests import caption_table
from tfrecords_schema.storage import files

MANIFESTS = ["features_info.json", "features.json", "dataset_info.json"]
NAMES = Names(["train", "val", "test"], [".tfrecord"], ["vocabulary.txt"], MANIFESTS)
SIDECAR = ".shards/val-00000-of-00001.tfrecord.parquet"


def tree(directory: pathlib.Path) -> dict[str, object]:
    """All that is there: the bytes of files, and where links lead."""
    found = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        found[name] = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
    return found


@pytest.fixture
def output(made_features, tmp_path):
    """A complete output, beside files of somebody else."""
    (tmp_path / "x").mkdir()
    for name in ("x.tfrecord", "x.parquet", "x.txt", "x.tfrecord.parquet"):
        (tmp_path / "x" / name).write_text("precious")
    return pathlib.Path(shutil.copytree(made_features, tmp_path / "features"))


def refused(run, tmp_path, match, **flags):
    """It is refused in one line, and nothing has changed anywhere, whether --overwrite is given or not."""
    before = tree(tmp_path)
    for overwrite in (False, True):
        with pytest.raises(InputError, match=match) as told:
            run(overwrite=overwrite, **flags)
        assert "\n" not in str(told.value) and len(str(told.value)) < 800
        assert tree(tmp_path) == before


# Names that lead out of the output.


@pytest.mark.parametrize(
    "names",
    [
        ["../x/x.tfrecord", "val-00000-of-00001.tfrecord"],
        ["{outside}/x.tfrecord", "val-00000-of-00001.tfrecord"],
        ["train-00000-of-00001.tfrecord", "val-00000-of-99999.tfrecord"],  # of which no other is there
        [7, 8],
    ],
)
def test_a_list_of_shards_is_not_followed_out_of_the_output(make_features, made_features, output, tmp_path, names):
    named = [name.format(outside=tmp_path / "x") if isinstance(name, str) else name for name in names]
    pq.write_table(pa.table({"name": named}), output / caption_table.SHARD_LIST)
    _, report = make_features()
    assert report["shards"] == 2 and content(output) == content(made_features)
    assert set(map(files.read_bytes, map(str, (tmp_path / "x").iterdir()))) == {b"precious"}


@pytest.mark.parametrize(
    ("role", "name"),
    [
        ("vocabulary.txt", "../x/x.txt"),
        ("vocabulary.txt", "vocabulary.txt/../../x/x.txt"),
        (".shards/list.parquet", "{outside}/x.parquet"),
        ("rejects/train.parquet", "../x/x.parquet"),
    ],
)
def test_a_report_is_not_followed_out_of_the_output(make_features, made_features, output, tmp_path, role, name):
    name = name.format(outside=tmp_path / "x")
    edit_json(output / "report.json", lambda values: values["files"].update({role: name}))
    before = tree(tmp_path)
    with pytest.raises(
        InputError, match=r"report.json is damaged, or was written by another version .*; give --overwr"
    ):
        make_features()
    assert tree(tmp_path) == before
    make_features(overwrite=True)
    assert content(output) == content(made_features)
    assert set(map(files.read_bytes, map(str, (tmp_path / "x").iterdir()))) == {b"precious"}


def _repeated(table):
    return table.set_column(1, "row", pa.array([0] * len(table), pa.int32()))


def _beyond(table):
    return table.set_column(1, "row", pa.array([row + 900 for row in table["row"].to_pylist()], pa.int32()))


def _map(table):
    """Which Arrow has no cast to text from."""
    return table.set_column(2, "image_id", pa.array([[("a", 1)]] * len(table), pa.map_(pa.string(), pa.int32())))


def _text(table):
    return table.set_column(1, "row", pa.array(["x"] * len(table)))


DAMAGE = {
    "rows twice": _repeated,
    "rows beyond the shard": _beyond,
    "rows of another type": _text,
    "a map in place of text": _map,
    "fewer rows": lambda table: table.slice(3),
    "no column": lambda table: table.drop_columns(["print"]),
    "no result": lambda table: table.replace_schema_metadata(None),
    **{
        f"result {result}": lambda table, result=result: table.replace_schema_metadata({"result": result})
        for result in ("{}", "[" * 100_000, "null", b"\xff\xfe")
    },
    **{
        f"{key} {value}": lambda table, key=key, value=value: table.replace_schema_metadata(
            {"result": json.dumps({**json.loads(table.schema.metadata[b"result"]), key: value})}
        )
        for key, value in (
            ("name", "../x/x.tfrecord"),  # which would be read, or published, in place of the shard
            ("name", "train-00000-of-00001.tfrecord"),
            ("name", 3),
            ("bytes", -5),
            ("records", "8"),
            ("inputs", None),
            ("stage_seconds", [1]),
        )
    },
}


def test_a_damaged_sidecar_is_none(made_features, tmp_path):
    shard = "val-00000-of-00001.tfrecord"
    table, path = pq.read_table(made_features / SIDECAR), tmp_path / SIDECAR
    path.parent.mkdir()
    pq.write_table(table, path)
    assert sidecars.read(str(tmp_path), shard).result.records == 8
    for name, damage in DAMAGE.items():
        pq.write_table(damage(table), path)
        assert sidecars.read(str(tmp_path), shard) is None, name


def test_a_shard_whose_sidecar_is_of_another_is_made_again(make_features, made_features, output):
    pq.write_table(DAMAGE["name ../x/x.tfrecord"](pq.read_table(output / SIDECAR)), output / SIDECAR)
    _, report = make_features()
    assert report["kept"] == 24 and content(output) == content(made_features)


def test_rows_that_a_caption_table_does_not_have_are_made_again(run, tmp_path):
    output, _ = run()
    expected = content(output)
    (sidecar,) = (output / ".shards").glob("captions-*")
    table = pq.read_table(sidecar)
    metadata = json.loads(table.schema.metadata[b"result"])
    shard = pq.read_table(output / "captions-00000-of-00001.parquet")
    pq.write_table(shard.slice(3), output / "captions-00000-of-00001.parquet")  # a table, of fewer rows
    size = (output / "captions-00000-of-00001.parquet").stat().st_size
    metadata.update(bytes=size, made_from="another")
    pq.write_table(table.replace_schema_metadata({"result": json.dumps(metadata)}), sidecar)
    run()
    assert content(output) == expected


OPTIONS = ["", "{gar", "[" * 100_000, '{"a": ' * 5_000, "[1]", "null", "\ufeff{}", '{"a": NaN}']


def test_damaged_options_stop_no_run(make_features, made_features, output):
    (output / ".work").mkdir()
    (output / "report.json").unlink()
    for text in OPTIONS:
        for encoding in ("utf-8", "utf-16"):
            (output / ".work/options.json").write_text(text, encoding=encoding)
            assert lifecycle.check(str(output), lifecycle.Options({}, {"a": 1}), NAMES) is None
    make_features()
    assert content(output) == content(made_features) and not (output / ".work").exists()


REPORTS = {
    "deep": lambda text: text[:-2] + ', "x": ' + "[" * 100_000,
    "deep and whole": lambda text: text.rstrip()[:-1] + ', "x": ' + "[" * 3000 + "]" * 3000 + "}",
    "a number as text": lambda text: text.replace('"records": 32', '"records": "32"', 1),
    "below zero": lambda text: text.replace('"records": 32', '"records": -5', 1),
    "null": lambda text: text.replace('"files": {', '"files": null, "y": {'),
    "a list": lambda text: text.replace('"options": {', '"options": [], "y": {'),
}


@pytest.mark.parametrize("damage", REPORTS.values(), ids=REPORTS)
def test_a_damaged_report_is_told_in_one_line_and_overwritten(output, damage):
    path = output / "report.json"
    text = path.read_text()
    path.write_text(damage(text))
    assert path.read_text() != text
    with pytest.raises(
        InputError, match=r"report.json is damaged, or was written by another version .*; give --overwr"
    ):
        read_report(str(output), NAMES)
    assert read_report(str(output), NAMES, overwrite=True) is None


# Links.


@pytest.mark.parametrize("name", [".work", ".shards", "rejects", ".work/finished", ".work/listing", ".work/progress"])
@pytest.mark.parametrize("complete", [False, True])
def test_links_below_an_output_are_refused(make_features, output, tmp_path, name, complete):
    if not complete:
        shutil.rmtree(output)
    shutil.rmtree(output / name, ignore_errors=True)
    (output / name).parent.mkdir(parents=True, exist_ok=True)
    (output / name).symlink_to(tmp_path / "x")
    refused(make_features, tmp_path, f"features/{name} to be a directory, found a link")


def test_a_link_in_place_of_a_file_is_replaced_and_not_followed(make_features, made_features, output, tmp_path):
    for name in ("report.json", "features_info.json", "vocabulary.txt", SIDECAR):
        shutil.move(output / name, tmp_path / "x" / pathlib.Path(name).name)
        (output / name).symlink_to(tmp_path / "x" / pathlib.Path(name).name)
    before = tree(tmp_path / "x")
    make_features(overwrite=True)
    assert tree(tmp_path / "x") == before and content(output) == content(made_features)


# Other people's files.


@pytest.mark.parametrize(
    "name",
    [
        ".work/precious.txt",
        ".work/listing/precious.parquet",
        ".work/finished/precious.tfrecord",
        ".work/progress/x",
        ".work/mine/precious.txt",
        ".shards/train-00000-of-00001.tfrecord.parquet/precious.txt",
        ".work/finished/mine/train-00000-of-00001.tfrecord",
        ".shards/precious.parquet",
        ".shards/captions-00000-of-00001.parquet.parquet",
    ],
)
@pytest.mark.parametrize("complete", [False, True])
def test_files_of_others_in_our_folders_are_left(make_features, output, tmp_path, name, complete):
    if not complete:
        shutil.rmtree(output)
    if (output / name).parent.is_file():
        (output / name).parent.unlink()
    (output / name).parent.mkdir(parents=True, exist_ok=True)
    (output / name).write_text("precious")
    refused(make_features, tmp_path, "features/.+ was not written by this command; move it away")


@pytest.mark.parametrize(
    "name", ["rejects/train.parquet", "vocabulary.txt", "train-00000-of-00001.tfrecord", *MANIFESTS]
)
def test_files_that_are_called_like_ours_are_left(make_features, tmp_path, name):
    path = tmp_path / "features" / name
    path.parent.mkdir(parents=True)
    path.write_text("precious")
    refused(make_features, tmp_path, f"holds {name}, but no report.json of a run that made it")


def test_other_files_beside_an_output_are_left(make_features, made_features, output):
    for name in ("notes.txt", "rejects/notes.txt", "train.tfrecord", "more/train-00000-of-00001.tfrecord"):
        (output / name).parent.mkdir(exist_ok=True)
        (output / name).write_text("precious")
    make_features(overwrite=True)
    found = content(output)
    assert {name: data for name, data in found.items() if data != b"precious"} == content(made_features)
    assert len(found) == len(content(made_features)) + 4


@pytest.mark.parametrize("damage", [None, "report.json", "features_info.json", "both"])
def test_captions_do_not_replace_features(run, output, tmp_path, damage):
    for name in ("report.json", "features_info.json"):
        if damage == name:
            (output / name).write_text("{gar")
        elif damage == "both":
            (output / name).unlink()
    match = {
        None: "is a feature directory, by its features_info.json",
        "both": "is a feature directory, by its dataset_info.json",
    }
    refused(run, tmp_path, match.get(damage, "--output"), output=output)


def test_captions_do_not_replace_a_model(run, export_dir, tmp_path):
    refused(run, tmp_path, "is an export directory, by its model_info.json", output=pathlib.Path(export_dir))


def test_features_do_not_replace_captions(run, make_features, tmp_path):
    output, _ = run()
    refused(make_features, tmp_path, "was not written by this command", output=output)
    shutil.rmtree(output / ".shards")
    refused(
        make_features, tmp_path, r"report.json belongs to another command's output: it has 'captions'", output=output
    )

"""The whole path through the three real commands, with a tiny network and a tiny decoder."""

import json
import pathlib
import re
import shlex
import shutil

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from PIL import Image

from pipelines import caption, gallery
from pipelines.captions import exports
from pipelines.engines import running
from pipelines.output import report as report_json
from tests.support import commands
from tests.support.decoders import signature_inputs
from tests.support.outputs import content, read_split, replace, rows
from tests.support.small import TINY
from tfrecords_schema.errors import InputError
from tfrecords_schema.networks import registry
from trainer import task
from trainer.exporting import saved_model
from trainer.model.exported import load_export


def test_rows_equal_an_independent_computation(run, export_dir, trained):
    """Captions of the images equal those that the SavedModel gives for the features in the feature directory."""
    output, report = run(beam_width=2, length_penalty=0.5, rows_per_file=3)
    found = rows(output)
    assert report["inputs"] == report["records"] == len(found) == 8
    assert len(list(output.glob("captions-0000?-of-00003.parquet"))) == 3
    info, vocabulary = exports.open_model(export_dir)
    signature = tf.saved_model.load(export_dir).signatures["caption"]
    for record in read_split(trained / "features", "val"):
        row = found[f"{int(record['image/id']):012d}"]
        assert row["image_uri"] == record["image/uri"] and (row["height"], row["width"]) == (72, 96)
        given = {"beam_width": 2, "length_penalty": 0.5, "min_length": 3}
        expected = signature(**signature_inputs(record["image/feature"][None], **given))
        texts = [vocabulary.decode(ids) for ids in expected["ids"].numpy()[0]]
        assert [c["caption"] for c in row["captions"]] == texts and row["caption"] == texts[0]
        np.testing.assert_allclose([c["log_prob"] for c in row["captions"]], expected["log_prob"][0], atol=1e-4)
        assert row["log_prob"] == row["captions"][0]["log_prob"]
    metadata = pq.read_schema(next(output.glob("captions-*"))).metadata
    assert metadata[b"model_digest"].decode() == info.digest


def test_the_schema_and_its_compression(run):
    output, _ = run()
    file = pq.ParquetFile(next(output.glob("captions-*")))
    assert [(field.name, str(field.type)) for field in file.schema_arrow] == [
        ("image_id", "string"),
        ("image_uri", "string"),
        ("height", "int32"),
        ("width", "int32"),
        ("caption", "string"),
        ("log_prob", "float"),
        ("captions", "list<element: struct<caption: string, log_prob: float>>"),
    ]
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"


@pytest.fixture
def odd_images(tmp_path) -> pathlib.Path:
    """Two good images, one under an awkward name, among four bad ones."""
    directory = tmp_path / "odd"
    directory.mkdir()
    Image.new("RGB", (9, 7), "red").save(directory / "good.png")
    Image.new("L", (5, 5), 9).save(directory / "a b%20#é\nü.png")
    (directory / "empty.png").write_bytes(b"")
    (directory / "text.png").write_text("hello")
    (directory / "short.png").write_bytes((directory / "good.png").read_bytes()[:-30])
    (directory / "folder.png").mkdir()
    (directory / "folder.png" / "x.txt").write_text("")
    return directory


def test_images_in_are_rows_and_rejects(run, odd_images):
    output, report = run(images=[f"{odd_images}/*.png"], max_reject_fraction=0.9)
    rejects = pq.read_table(output / "rejects/captions.parquet").to_pylist()
    assert sorted(rows(output)) == ["a b%20#é\nü", "good"]
    assert sorted((r["image_id"], r["stage"], r["error"]) for r in rejects) == [
        ("empty", "decode", "Empty"),
        ("short", "decode", "Truncated"),
        ("text", "decode", "NotAnImage"),
    ]
    assert report["inputs"] == 5 and report["records"] == 2 and report["rejects"] == 3
    gallery.main(shlex.split(report["next_command"])[3:])
    page = pathlib.Path(f"{output}-gallery.html").read_text()
    assert "2 of 2 captioned images; 3 were rejected" in page


def test_the_first_rejects_are_told(run, tmp_path, capsys):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (9, 7), "red").save(tmp_path / "images/good.png")
    for number in range(12):
        (tmp_path / f"images/{number:02}.png").write_text("hello")
    (tmp_path / "images/\x1b[31m.png").write_text("hello")
    output, _ = run(images=[str(tmp_path / "images")], max_reject_fraction=1.0)
    told = capsys.readouterr().out.partition("\nrejected    ")[2].splitlines()
    names = [row["image_uri"] for row in pq.read_table(output / "rejects/captions.parquet").to_pylist()]
    shown = [pathlib.Path(name).name.replace("\x1b", "\\x1b") for name in names[:10]]
    assert [line.split()[0] for line in told[:10]] == shown
    assert all("decode/NotAnImage: no known image format" in line for line in told[:10])
    assert told[10:] == [f"{'':12}… and 3 more in {output}/rejects/captions.parquet"]


def test_images_that_are_not_there_have_no_rate(run, tmp_path, capsys):
    (tmp_path / "table.csv").write_text(f"image\n{tmp_path}/none.jpg\n")
    _, report = run(images=[str(tmp_path / "table.csv")], max_reject_fraction=1.0)
    assert report["rejects"] == 1 and report["images_per_second_per_worker"] is None
    said = capsys.readouterr().out
    assert "images/s" not in said and "\nnext" not in said and "\nrejected    none.jpg  " in said


def test_images_that_only_their_endings_tell_apart_are_rows_of_their_own(run, tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("cat.jpg", "cat.png", "dog.png"):
        Image.new("RGB", (9, 7), "red").save(tmp_path / "images" / name)
    output, report = run(images=[str(tmp_path / "images")])
    assert report["rejects"] == 0
    uris = {image_id: pathlib.Path(row["image_uri"]).name for image_id, row in rows(output).items()}
    assert uris == {"cat.jpg": "cat.jpg", "cat.png": "cat.png", "dog": "dog.png"}


def test_rejects_outlive_a_rerun_and_mended_images_are_taken(run, odd_images):
    """Names that are no UTF-8 too; and an image that was bad, and is good now, is not refused for ever."""
    for number in range(4):
        (odd_images / f"bad\udcff{number}.png").write_text("x")
    flags = {"images": [f"{odd_images}/*.png"], "max_reject_fraction": 0.9, "rows_per_file": 1}
    output, first = run(**flags)
    before = content(output)
    _, second = run(**flags)
    assert second["shards_left"] == second["shards"] and content(output) == before
    assert second["reject_reasons"] == first["reject_reasons"]

    shutil.copy(odd_images / "good.png", odd_images / "text.png")
    _, third = run(**flags)
    assert third["records"] == first["records"] + 1 and third["rejects"] == first["rejects"] - 1
    assert third["shards_left"] == third["shards"] - 1
    (table,) = (output / "rejects").iterdir()
    table.unlink()
    _, fourth = run(**flags)
    assert fourth["rejects"] == third["rejects"] and fourth["reject_reasons"] == third["reject_reasons"]


def test_the_output_may_lie_below_the_images(run, odd_images):
    flags = {"images": [f"{odd_images}/**"], "output": odd_images / "out", "max_reject_fraction": 0.9}
    _, first = run(**flags)
    _, second = run(**flags)
    assert first["inputs"] == second["inputs"] == 6


def test_files_of_others_are_left_alone(run, tmp_path):
    output = tmp_path / "captions"
    output.mkdir()
    others = {
        "train-00000-of-00007.parquet": "a data set",
        "rejects.txt": "notes",
        "vocabulary.md": "mine",
        "vocabulary.txt": "x",
    }
    for name, text in others.items():
        (output / name).write_text(text)
    run()
    run(overwrite=True)
    assert {name: (output / name).read_text() for name in others} == others
    (output / "report.json").write_text('{"mine": 1}')
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"report.json was not written by this program"):
            run(overwrite=overwrite)
    (output / "report.json").unlink()
    with pytest.raises(InputError, match=r"holds captions-00000-of-00001-b.parquet, but no report.json"):
        run()


@pytest.mark.parametrize("how", [{}, {"sample": True}])
def test_a_model_without_finite_probabilities_is_told_of(run, export_dir, how):
    info, vocabulary = exports.open_model(export_dir)
    decoder = load_export(export_dir, info)
    for weight in decoder.trainable_weights:
        weight.assign(np.full(weight.shape, np.nan))
    saved_model.write(decoder, vocabulary, info, export_dir)
    with pytest.raises(running.PipelineError, match="the model gives no finite log probability"):
        run(**how)


def test_only_bad_images_leave_an_empty_table(run, odd_images, capsys):
    images = [f"{odd_images}/text.png", f"{odd_images}/empty.png"]
    with pytest.raises(report_json.RejectsError) as told:
        run(images=images, output=odd_images / "out")
    assert str(told.value).startswith(
        "2 of 2 images (100.0%) were rejected, more than --max_reject_fraction 0.05 allows, so the exit status is 1; "
    )
    assert re.search(rf"; the first: decode/(NotAnImage|Empty): {odd_images}/(text|empty).png: ", str(told.value))
    assert str(told.value).endswith(f"complete, the rejects are in {odd_images}/out/rejects/captions.parquet")
    said = capsys.readouterr().out
    assert "\nnext" not in said
    (path,) = (odd_images / "out").glob("captions-*")
    assert pq.read_table(path).num_rows == 0
    assert pq.read_table(odd_images / "out/rejects/captions.parquet").num_rows == 2


def test_reruns_and_batches_change_nothing(run, tmp_path):
    first, _ = run(tmp_path / "a", batch_size=8)
    second, _ = run(tmp_path / "b", batch_size=3)
    assert {i: r["caption"] for i, r in rows(first).items()} == {i: r["caption"] for i, r in rows(second).items()}
    before = content(first)
    _, report = run(tmp_path / "a", batch_size=8)
    assert report["shards_left"] == report["shards"] and content(first) == before
    with pytest.raises(InputError, match=r"beam_width was 3, now 5"):
        run(tmp_path / "a", beam_width=5)


def test_other_weights_are_refused_by_digest_before_anything_is_read(run, tmp_path):
    h5py.File(tmp_path / "other.h5", "w").close()
    with pytest.raises(InputError, match=r"weights_digest differs: --weights .*other.h5 has .*, --model .* has"):
        run(weights=str(tmp_path / "other.h5"), images=["/nowhere/*.jpg"])
    assert not (tmp_path / "captions").exists()


@pytest.mark.parametrize("kind", ["file", "SavedModel directory"])
@pytest.mark.slow
def test_each_command_that_is_named_next_works_as_it_stands(kind, tiny_network, coco_dir, tmp_path, monkeypatch):
    """With weights of one's own, given by a path below the working directory; then from another one."""
    monkeypatch.chdir(tmp_path)
    if kind == "file":
        h5py.File("mine.h5", "w").close()
        given = {"extractor": tiny_network, "weights": "mine.h5"}
    else:
        TINY.build(None).export("mine", verbose=False)
        given = {"extractor": "saved_model:mine"}
    path = str(tmp_path / ("mine.h5" if kind == "file" else "mine"))
    report = commands.features(coco_dir=str(coco_dir), output="of mine", min_word_count=1, **given)
    following = shlex.split(report["next_command"])
    assert following[:3] == ["python", "-m", "trainer.task"]
    task.main([*following[3:], *["--epochs", "1", "--units", "16", "--embedding_dim", "16", "--batch_size", "8"]])

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    flags = {"images": [f"{coco_dir}/val2017"], "model": str(tmp_path / "of mine-job/export"), "output": "it's here"}
    report = commands.caption(**flags)
    assert report["records"] == 8
    following = shlex.split(report["next_command"])
    assert following[:3] == ["python", "-m", "pipelines.gallery"]
    gallery.main(following[3:])
    assert pathlib.Path("it's here-gallery.html").stat().st_size > 1000

    shutil.move(path, f"{path}-moved")
    shutil.rmtree(tmp_path / "of mine")
    assert commands.caption(**{**flags, "output": "without"})["records"] == 8, "the model carries them"


def test_weights_from_a_file_must_be_given_again(export_dir, run):
    path = pathlib.Path(export_dir) / "model_info.json"
    info = json.loads(path.read_text())
    info["features"]["weights"] = "mine.h5"
    path.write_text(json.dumps(info))
    with pytest.raises(InputError, match=r"--weights: expected the file 'mine.h5' \(digest .*give --weights FILE"):
        run()


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (shutil.rmtree, "--model: expected an export directory with model_info.json, found none in"),
        (lambda d: (d / "saved_model.pb").unlink(), "--model: expected an export directory with saved_model.pb"),
        (
            lambda d: replace(d / "vocabulary.txt", "a ", "zebra "),
            "is not the vocabulary of this model",
        ),
        (lambda d: (d / "model_info.json").write_text("{}"), "model_info.json: expected schema_version 5, found None"),
    ],
)
def test_model_directories_that_are_none(export_dir, tmp_path, capsys, break_it, message):
    break_it(pathlib.Path(export_dir))
    with pytest.raises(SystemExit) as exit_:
        caption.main(["--images", "*.jpg", "--model", export_dir, "--output", str(tmp_path / "out")])
    stderr = capsys.readouterr().err
    assert exit_.value.code == 2 and stderr.startswith("error: ") and message in stderr and stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_no_image_is_an_error_that_repeats_the_pattern(run, tmp_path):
    with pytest.raises(InputError, match=r"found no file that matches '/nowhere/\*.jpg'"):
        run(images=["/nowhere/*.jpg"])
    assert not (tmp_path / "captions").exists()


def test_the_network_comes_from_the_model(run, monkeypatch):
    monkeypatch.delitem(registry.NETWORKS, "tiny")
    with pytest.raises(InputError, match="--extractor: expected one of"):
        run()

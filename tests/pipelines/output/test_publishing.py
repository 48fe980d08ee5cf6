"""The last step, repeated and killed; an input that changes while the run goes on."""

import json
import shutil
import subprocess
import sys

import pytest

from pipelines.output import publishing, steps
from pipelines.training_records.records import RecordMaker
from tests.support import ROOT
from tests.support.outputs import content, rows
from tfrecords_schema.errors import InputError


@pytest.mark.slow
@pytest.mark.parametrize("kind", [[], ["s3"]], ids=["local", "s3"])
def test_readers_find_a_whole_output_whenever_a_run_is_killed(tmp_path, kind):
    """The first run and two reruns over a complete output, killed at random moments and while they publish."""
    command = [sys.executable, "-m", "tests.support.killed", str(tmp_path), "7", *kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) >= 20


@pytest.mark.parametrize("rerun", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_publishing_twice_changes_nothing(make_features, coco_dir, tmp_path, monkeypatch, rerun):
    """Engines may ask for the last step again, also when what it does not need any more is being deleted."""
    call = steps._call

    def twice(*arguments, **context):
        for stale in list(call(*arguments, **context)):
            steps.files.delete(*stale)
        yield from call(*arguments, **context)

    made = {}
    for name in ("once", "twice"):
        monkeypatch.setattr(steps, "_call", twice if name == "twice" and not rerun else call)
        make_features(tmp_path / name)
        if rerun:
            monkeypatch.setattr(steps, "_call", twice if name == "twice" else call)
            make_features(tmp_path / name, max_caption_length=9, update=True)
        made[name] = content(tmp_path / name)
        names = json.loads((tmp_path / name / "report.json").read_text())["files"].values()
        assert all((tmp_path / name / one).exists() for one in names)
    assert made["once"] == made["twice"] and len(made["once"]) == 8


def test_what_is_stale_is_deleted_piece_by_piece_when_all_else_is_there(make_features, tmp_path, monkeypatch):
    """Not by the worker that publishes: each piece is an element, which an engine may give to any worker."""
    output, _ = make_features(records_per_shard=4)
    before = {path.name for path in output.glob("*.tfrecord")}
    delete, told = steps._delete, tmp_path / "pieces.txt"  # a file, as workers get copies of what a step has

    def deletes(stale):
        report, manifest = (json.loads((output / f"{name}.json").read_text()) for name in ("report", "features_info"))
        shards = [shard["name"] for split in manifest["splits"].values() for shard in split["shards"]]
        assert all((output / name).exists() for name in [*shards, *report["files"].values()])
        assert not before & {*shards}
        with told.open("a") as file:
            print(len(stale), file=file)
        delete(stale)

    monkeypatch.setattr(steps, "_delete", deletes)
    monkeypatch.setattr(publishing, "_DELETED_TOGETHER", 3)
    make_features(records_per_shard=4, max_caption_length=9, update=True)
    pieces = [int(line) for line in told.read_text().splitlines()]
    assert len(before) == 8 and sum(pieces) >= 2 * len(before) and max(pieces) == 3
    assert not before & {path.name for path in output.iterdir()} and not (output / ".work").exists()


def test_an_input_that_changes_during_the_run_changes_nothing(run, coco_dir, tmp_path, monkeypatch, capsys):
    """The images are those that were listed; the next run takes those that came, and computes no other."""
    from pipelines.captions.rows import RowMaker

    images = tmp_path / "images"
    shutil.copytree(coco_dir / "val2017", images)
    listed = sorted(path.stem for path in images.iterdir())
    make, changed = RowMaker.make, []

    def changes_first(self, job):
        if not changed:
            changed.append(True)
            shutil.copy(images / f"{listed[0]}.jpg", images / "new.jpg")
            (images / f"{listed[1]}.jpg").unlink()
        return make(self, job)

    monkeypatch.setattr(RowMaker, "make", changes_first)
    flags = {"images": [str(images)], "rows_per_file": 3, "max_reject_fraction": 0.5}
    output, first = run(**flags)
    assert first["inputs"] == 8 and first["reject_reasons"] == {"read/Absent": 1}
    assert rows(output).keys() == set(listed) - {listed[1]}
    shutil.copy(coco_dir / f"val2017/{listed[1]}.jpg", images)
    _, second = run(**flags)
    assert (second["kept"], second["new"], second["retried"], second["rejects"]) == (7, 1, 1, 0)
    assert "  of these              7 kept, 1 new, 1 tried again\n" in capsys.readouterr().out
    assert rows(output).keys() == {*listed, "new"}


def test_a_machine_that_is_out_of_memory_rejects_no_image(make_features, tmp_path, monkeypatch):
    from pipelines.engines.running import PipelineError
    from pipelines.vision import images

    pixels, failed = images.Encoded.pixels, []

    def fails_once(self, *given):
        if not failed:
            failed.append(True)
            raise MemoryError
        return pixels(self, *given)

    expected, _ = make_features(tmp_path / "expected")
    monkeypatch.setattr(images.Encoded, "pixels", fails_once)
    with pytest.raises(PipelineError, match="MemoryError"):
        make_features(tmp_path / "features")
    _, report = make_features(tmp_path / "features")
    assert report["rejects"] == 0 and content(tmp_path / "features") == content(expected)


def test_a_complete_output_is_whole_while_the_next_is_made(make_features, tmp_path, monkeypatch):
    from trainer.data.dataset import open_directory

    output, _ = make_features(records_per_shard=5)
    before, seen = content(output), []
    make = RecordMaker.make

    def looks_first(self, job):
        directory = open_directory(str(output))
        seen.append(directory.info.max_caption_length)
        return make(self, job)

    monkeypatch.setattr(RecordMaker, "make", looks_first)
    _, report = make_features(records_per_shard=5, max_caption_length=9, update=True)
    assert len(seen) == report["shards"] == 7 and set(seen) == {16}
    assert content(output) != before


GARBAGE = b"{gar\xffbage\x00"


@pytest.mark.parametrize(
    "name", [".shards/val-00000-of-00001.tfrecord.parquet", ".shards/list.parquet", "features_info.json", ".shards"]
)
def test_damage_is_made_good_by_the_same_command(make_features, made_features, features_dir, name):
    if name == ".shards":
        shutil.rmtree(features_dir / name)
    else:
        (features_dir / name).write_bytes(GARBAGE)
    _, report = make_features()
    assert report["records"] == 32 and content(features_dir) == content(made_features)
    assert report["kept"] == {".shards": 0, ".shards/list.parquet": 32, "features_info.json": 32}.get(name, 24)


def test_a_damaged_report_is_told_and_overwritten(make_features, features_dir):
    output, before = features_dir, content(features_dir)
    (output / "report.json").write_bytes(GARBAGE)
    with pytest.raises(
        InputError, match=r"report.json is damaged, or was written by another version .*; give --overwr"
    ):
        make_features()
    make_features(overwrite=True)
    assert content(output) == before
    (output / "report.json").unlink()
    with pytest.raises(InputError, match=r"holds .*, but no report.json of a run that made it"):
        make_features()
    make_features(overwrite=True)
    assert content(output) == before


def test_options_of_a_killed_run_may_be_damaged(make_features, tmp_path, monkeypatch):
    from pipelines.engines.running import PipelineError
    from pipelines.output import sharding

    write, calls = sharding.sidecars.write, []

    def breaks(*arguments):
        calls.append(write(*arguments))
        if len(calls) == 3:
            raise OSError("the machine went down")

    monkeypatch.setattr(sharding.sidecars, "write", breaks)
    with pytest.raises(PipelineError):
        make_features(records_per_shard=5)
    (tmp_path / "features/.work/options.json").write_text("{gar")
    _, report = make_features(records_per_shard=5)
    assert report["records"] == 32 and report["kept"] > 0


def test_only_images_that_could_not_be_read_are_tried_again(run, coco_dir, tmp_path):
    """And not another of the same id, which was refused for that."""
    (tmp_path / "t.csv").write_text(f"path,id\nnone.jpg,7\n{coco_dir}/val2017/000000100001.jpg,7\n")
    flags = {"images": [str(tmp_path / "t.csv")], "max_reject_fraction": 1.0}
    run(**flags)
    _, report = run(**flags)
    assert (report["inputs"], report["retried"], report["new"]) == (2, 1, 0)


def test_parquet_columns_that_share_a_name_are_nobodys(run, coco_dir, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = pa.array([str(coco_dir / "val2017/000000100001.jpg")], pa.string_view())
    table = pa.Table.from_arrays([path, pa.array([1]), pa.array([2])], ["path", "x", "x"])
    pq.write_table(table, tmp_path / "t.parquet")
    _, report = run(images=[str(tmp_path / "t.parquet")])
    assert report["records"] == 1
    with pytest.raises(InputError, match=r"--metadata_columns: .*: expected a column 'x', found 'path'"):
        run(tmp_path / "other", images=[str(tmp_path / "t.parquet")], metadata_columns=["x"])

"""Images that change, shrink or vanish after they were listed and before they are read."""

import shutil

import pyarrow.parquet as pq
import pytest

from pipelines.captions.rows import RowMaker
from pipelines.training_records.records import RecordMaker
from tests.support import stores
from tests.support.outputs import content, rows
from tfrecords_schema.storage import clients


@pytest.mark.slow
def test_images_that_change_while_a_run_goes_on(make_features, coco_dir, tmp_path, monkeypatch):
    """Each is a record or a reject, and a rerun makes of them what a first run would have made."""
    coco = shutil.copytree(coco_dir, tmp_path / "coco")
    replaced, cut, gone = sorted((coco / "train2017").iterdir())[:3]
    before = {path: path.read_bytes() for path in (cut, gone)}
    make, changed = RecordMaker.make, []

    def changes_first(self, job):
        if not changed:
            changed.append(True)
            shutil.copy(next((coco / "val2017").iterdir()), replaced)
            cut.write_bytes(before[cut][:500])
            gone.unlink()
        return make(self, job)

    monkeypatch.setattr(RecordMaker, "make", changes_first)
    flags = {"coco_dir": coco, "max_reject_fraction": 0.5}
    output, report = make_features(**flags)
    assert (report["inputs"], report["records"]) == (32, 30)
    assert report["reject_reasons"] == {"decode/Truncated": 1, "read/Absent": 1}
    rejects = pq.read_table(output / "rejects/train.parquet").to_pylist()
    assert {row["image_uri"] for row in rejects} == {str(cut), str(gone)}
    for path, data in before.items():
        path.write_bytes(data)
    _, report = make_features(**flags)
    assert (report["records"], report["rejects"], report["kept"]) == (32, 0, 29)
    assert content(output) == content(make_features(tmp_path / "anew", **flags)[0])


@pytest.fixture(params=list(stores.KINDS))
def bucket(request, tmp_path, monkeypatch):
    """A store of each kind, for the clients of this process."""
    with stores.running(request.param, tmp_path) as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        clients.use_flags({})
        yield server
    clients.use_flags({})


@pytest.mark.slow
def test_a_bucket_that_changes_while_a_run_goes_on(run, bucket, coco_dir, tmp_path, monkeypatch):
    """What came is for the next run, what went is a reject; the next run computes what came, went or changed.

    Each run lists the images once.
    """
    images = {path.stem: path.read_bytes() for path in sorted((coco_dir / "val2017").iterdir())}
    for name, data in images.items():
        bucket.put(f"images/{name}.jpg", data)
    gone, replaced, *others = images
    make, changed = RowMaker.make, []

    def changes_first(self, job):
        if not changed:
            changed.append(True)
            bucket.put("images/new.jpg", images[others[0]])
            bucket.put(f"images/{replaced}.jpg", images[others[1]])
            bucket.delete(f"images/{gone}.jpg")
        return make(self, job)

    monkeypatch.setattr(RowMaker, "make", changes_first)
    flags = {"images": [bucket.url("images")], "rows_per_file": 3, "max_reject_fraction": 0.5}
    output, report = run(**flags)
    assert (report["inputs"], report["records"], report["reject_reasons"]) == (8, 7, {"read/Absent": 1})
    assert len([line for line in bucket.requests() if "prefix=images" in line]) == 1
    bucket.put(f"images/{gone}.jpg", images[gone])
    _, report = run(**flags)
    assert (report["kept"], report["new"], report["retried"], report["rejects"]) == (6, 2, 1, 0)
    assert rows(output).keys() == {*images, "new"}
    found = {name: row["captions"] for name, row in rows(output).items()}
    assert found == {name: row["captions"] for name, row in rows(run(tmp_path / "anew", **flags)[0]).items()}

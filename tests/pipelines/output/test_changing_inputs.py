"""Images that change, shrink or vanish after they were listed and before they are read."""

import shutil

import pyarrow.parquet as pq
import pytest

from pipelines.training_records.records import RecordMaker
from tests.support.outputs import content


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

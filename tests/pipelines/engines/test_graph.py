"""What stands in the pipeline graph, and what does not."""

import json
import re

import apache_beam as beam
import pytest

from pipelines.engines import running
from pipelines.listing.table import Listing, every_shard
from pipelines.output.sharding import ProcessShard
from pipelines.output.steps import MakeShards
from tests.support import commands


class NoMaker:
    suffix = ".none"
    keeps_rows = False


def test_only_extraction_asks_for_a_gpu():
    pipeline = beam.Pipeline()
    process = ProcessShard(NoMaker(), Listing("/nowhere", {"a": 1}), {}, {})
    hint = "type:nvidia-l4;count:1;install-nvidia-driver"
    _ = pipeline | beam.Create([("a", 0)]) | MakeShards(process, hint) | "After" >> beam.Map(print)
    graph = pipeline.to_runner_api()
    asking = set()
    for transform in graph.components.transforms.values():
        hints = (
            graph.components.environments[transform.environment_id].resource_hints if transform.environment_id else {}
        )
        if hints:
            assert dict(hints) == {"beam:resources:accelerator:v1": hint.encode()}
            asking.add(transform.unique_name)
    assert {re.sub(r"/ParDo\(.*", "", name) for name in asking} == {"MakeShards/ProcessShard"}


def test_no_annotation_is_baked_into_the_graph(coco_dir, tmp_path, tiny_network, monkeypatch):
    """The graph of 20,000 images is hardly larger than that of 24: by ranges of its shards' numbers, of at most 100."""
    sizes = {}

    class StopHereError(Exception):
        pass

    def measure(engine, *_):
        sizes[len(sizes)] = len(engine.pipeline.to_runner_api().SerializeToString())
        raise StopHereError

    monkeypatch.setattr(running, "run_pipeline", measure)
    images = [{"id": n, "file_name": f"{n:012d}.jpg"} for n in range(20_000)]
    captions = [{"image_id": n, "caption": f"A caption, number {n}."} for n in range(20_000)]
    (tmp_path / "many.json").write_text(json.dumps({"images": images, "annotations": captions}))
    for path in (coco_dir / "annotations/captions_train2017.json", tmp_path / "many.json"):
        with pytest.raises(StopHereError):
            commands.features(
                output=str(tmp_path / "out"),
                train_captions=[str(path)],
                train_images=[str(coco_dir / "train2017")],
                extractor=tiny_network,
                weights="random",
            )
    assert sizes[1] < sizes[0] + 10_000 and sizes[1] < 130_000


@pytest.mark.parametrize("count", [1, 99, 100, 101, 100_000])
def test_every_shard_is_in_one_of_a_hundred_ranges(count):
    counts = {"train": count, "val": 1}
    ranges = every_shard(counts, 100)
    assert len(ranges) <= 101
    found = [(split, number) for split, first, end in ranges for number in range(first, end)]
    assert found == [*(("train", n) for n in range(count)), ("val", 0)]

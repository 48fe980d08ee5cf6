"""What the last step and the readers of an output pay for its number of shards: `python -m benchmarks.manifests`.

Results of shards, as ProcessShard gives them, are gathered, written and read by a process of its own for each number.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

_RUN = """
import hashlib, io, json, pickle, resource, sys, time
import apache_beam
from pipelines.features import _split_info
from pipelines.output.report import write_shard_list
from pipelines.output.sidecars import ShardResult
from tests.support.infos import SPEC
from tfrecords_schema.manifests.features_info import FeaturesInfo

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3

def timed(do):
    begun = time.perf_counter()
    made = do()
    told.extend([time.perf_counter() - begun, peak()])
    return made

def result(number):
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    stages = dict.fromkeys(("read", "decode", "forward", "write"), number / 7)
    name = f"train-{number:05d}-of-{count:05d}.tfrecord"
    counts = {"inputs": 1000, "records": 998, "captions": 4990, "bytes": 4_700_000 + number, "rejects": 2}
    made = ShardResult(name, digest, digest[::-1], **counts, run="ab" * 16, seconds=number / 3, stage_seconds=stages)
    return pickle.loads(pickle.dumps(made))  # as it comes out of a shuffle

count = int(sys.argv[1])
told = [count, peak()]
results = timed(lambda: [result(number) for number in range(count)])
told.append(len(pickle.dumps(results[0])))
shard_list = io.BytesIO()
timed(lambda: write_shard_list(results, shard_list))
told.append(len(shard_list.getvalue()))
info = FeaturesInfo(SPEC, 25, 100, "cd" * 32, {"train": _split_info(results)})
text = timed(info.dumps)
told.append(len(text))
del results, info
timed(lambda: FeaturesInfo.loads(text))
print(json.dumps(told))
"""
HEAD = (
    "| shards | imports, MB | results gathered | a result, bytes | their list written | its bytes "
    "| features_info.json made | its bytes | read |\n|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--shards", type=int, nargs="+", default=(1_000, 10_000, 100_000), help="also 1000000")
    args = p.parse_args()
    print(f"Seconds, and the peak of the process so far.\n\n{HEAD}")
    for count in args.shards:
        made = subprocess.run([sys.executable, "-c", _RUN, str(count)], stdout=subprocess.PIPE, check=True)
        _, imports, *rest = json.loads(made.stdout.splitlines()[-1])
        gathered, one, listed, size, dumped, length, loaded = _cells(rest)
        cells = [f"{count:,}", f"{imports:,.0f}", gathered, one, listed, size, dumped, length, loaded]
        print("| " + " | ".join(cells) + " |", flush=True)


def _cells(rest: list[float]) -> list[str]:
    """(seconds, MB) pairs as one cell each, with the sizes between them."""
    g, gm, one, w, wm, size, d, dm, length, r, rm = rest
    timed = [f"{seconds:.1f} s, {peak:,.0f} MB" for seconds, peak in ((g, gm), (w, wm), (d, dm), (r, rm))]
    return [timed[0], f"{one:,}", timed[1], f"{size:,}", timed[2], f"{length:,}", timed[3]]


if __name__ == "__main__":
    main()

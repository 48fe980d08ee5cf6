"""What people would use in place of the feature pipeline, beside it: `python -m benchmarks.peers`.

The same photographs go through the same network by the programs in benchmarks/contenders, in turns: once for speed and
memory, once with three bad images among them, once killed half way (SIGKILL to all processes) and started again.
`pip install 'ray[data]' tensorflow-hub` has what two of them need; who is not installed is left out.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import importlib.util
import pathlib
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator

import numpy as np

from benchmarks.contenders.common import LOG
from benchmarks.support.watching import Watched, watch


@dataclasses.dataclass(frozen=True)
class Contender:
    """One of the programs. `variants` are ways to run it on bad images; one without any is only measured."""

    name: str
    module: str
    needs: str
    variants: tuple[str, ...] = ("",)
    precision: str = "float32"


CONTENDERS = (
    Contender("ours", "ours", "apache_beam"),
    Contender("ours, `--precision auto`", "ours", "apache_beam", (), "auto"),
    Contender("Beam `RunInference`", "run_inference", "tensorflow_hub"),
    Contender("Ray Data `map_batches`", "ray_data", "ray", ("", "skip")),
    Contender("`tf.data` script", "tf_data", "tensorflow", ("", "skip")),
)
SPEED = (
    "| program | images/s while it computes | over {} | seconds to the first | CPU, ms an image | seconds in all "
    "| peak, MB | least cosine to the first |"
)
_HANGS_S = 1800  # then it is killed
BAD = {"empty.jpg": b"", "text.jpg": b"This is no image.\n" * 40}


@dataclasses.dataclass(frozen=True)
class Ran:
    """One run. `computed` is how many images the network had, `rate` images/s, the slope of their number over time."""

    watched: Watched
    computed: int
    to_first_s: float
    rate: float


def run(contender: Contender, images: pathlib.Path, weights: str, output: pathlib.Path, variant="", stop_at=0) -> Ran:
    """Runs one program to its end, or until it has computed `stop_at` images."""
    log = output.with_suffix(".log")
    log.unlink(missing_ok=True)

    def computed() -> list[tuple[float, int]]:
        lines = log.read_text().split("\n")[:-1] if log.exists() else []
        return [(float(when), int(count)) for when, count in map(str.split, lines)]

    command = [sys.executable, "-m", f"benchmarks.contenders.{contender.module}"]
    command += [str(images), weights, str(output), variant if contender.precision == "float32" else contender.precision]
    begun = time.time()
    watched = watch(
        command,
        {LOG: str(log), "PYTHONPATH": str(pathlib.Path(__file__).parents[1]), "RAY_USAGE_STATS_ENABLED": "0"},
        lambda: time.time() > begun + _HANGS_S or (stop_at and sum(count for _, count in computed()) >= stop_at),
    )
    found = computed()
    times, done = [when - begun for when, _ in found], np.cumsum([count for _, count in found])
    rate = float(np.polyfit(times, done, 1)[0]) if len(found) > 2 else float("nan")
    return Ran(watched, sum(count for _, count in found), min(times, default=float("nan")), rate)


def read(contender: Contender, output: pathlib.Path) -> dict[str, list[np.ndarray]]:
    """Every feature that a program has written, by the name of its image."""
    found = collections.defaultdict(list)
    for path, feature in _rows(contender.module, output):
        found[pathlib.Path(path).stem].append(np.asarray(feature, np.float32))
    return found


def _rows(module: str, output: pathlib.Path) -> Iterator[tuple[str, np.ndarray]]:
    import pyarrow.parquet as pq

    if module == "ours":
        from tfrecords_schema import record, shards
        from tfrecords_schema.manifests.features_info import open_info
        from tfrecords_schema.storage import files

        if not (output / "features_info.json").exists():
            return
        info = open_info(str(output), files.read_text, "DIR")
        for shard in info.splits["train"].shards:
            with open(output / shard.name, "rb") as handle:
                for data in shards.read_framed(handle):
                    one = record.decode(
                        data, info.features.shape, info.features.dtype, has_image=info.images is not None
                    )
                    yield one["image/uri"], one["image/feature"]
    elif module == "tf_data":
        if output.with_suffix(".npz").exists():
            with np.load(output.with_suffix(".npz")) as saved:
                yield from zip(saved["path"].tolist(), saved["feature"], strict=True)
    else:
        for path in sorted(output.rglob("*.parquet")) if output.exists() else ():
            table = pq.read_table(path, columns=["path", "feature"])
            yield from zip(table["path"].to_pylist(), table["feature"].to_pylist(), strict=True)


def copy_images(source: list[bytes], directory: pathlib.Path, count: int, bad: bool = False) -> None:
    """`count` images; the last three of them bad: nothing, a text, half a JPEG."""
    directory.mkdir(parents=True)
    for number in range(count):
        (directory / f"{number:06d}.jpg").write_bytes(source[number % len(source)])
    if bad:
        half = source[0][: len(source[0]) // 2]
        for number, (name, data) in enumerate({**BAD, "truncated.jpg": half}.items()):
            (directory / f"{number * count // 3:06d}.jpg").rename(directory / name)
            (directory / name).write_bytes(data)


def clear(output: pathlib.Path) -> None:
    """Deletes whatever a program has written."""
    for path in output.parent.glob(f"{output.name}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def of_bad(contender: Contender, images: pathlib.Path, weights: str, output: pathlib.Path, variant: str) -> str:
    """What became of the bad images, in words."""
    clear(output)
    ran = run(contender, images, weights, output, variant)
    names = {path.stem for path in images.iterdir()}
    bad = {*(pathlib.Path(name).stem for name in BAD), "truncated"}
    found = set(read(contender, output))
    told = f"exit status {ran.watched.status}; {len(found & names - bad)} of {len(names - bad)} good images"
    if found & bad:
        told += f"; rows of {', '.join(sorted(found & bad))}"
    return told + _aside(contender, output)


def _aside(contender: Contender, output: pathlib.Path) -> str:
    """What a program has written of the images that it could not use."""
    import pyarrow.parquet as pq

    if contender.module == "ours":
        table = pq.read_table(output / "rejects" / "train.parquet").to_pylist()
        return "; rejects: " + ", ".join(f"{pathlib.Path(r['image_uri']).name} {r['error']}" for r in table)
    lines = [line for path in output.glob("failed*") for line in path.read_text().splitlines() if "jpg: " in line]
    return f"; {len(lines)} dead letters" if lines else ""


def of_kill(contender: Contender, images: pathlib.Path, weights: str, output: pathlib.Path) -> list[str]:
    """Cells: what the second run computed, of it what the first had computed already; what the output is in the end."""
    clear(output)
    count = len(list(images.iterdir()))
    first = run(contender, images, weights, output, stop_at=count // 2)
    second = run(contender, images, weights, output)
    found = read(contender, output)
    once = sum(len(features) == 1 for features in found.values())
    more = sum(len(features) > 1 for features in found.values())
    again = max(0, first.computed + second.computed - count)
    told = f"{once} once" + (f", {more} more than once" if more else "")
    told += f", {count - once - more} missing" if count > once + more else ""
    return [f"{first.computed}", f"{second.computed}", f"**{again}**", told + _status(second)]


def _status(ran: Ran) -> str:
    return f" (exit status {ran.watched.status})" if ran.watched.status else ""


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--images", type=pathlib.Path, help="directory of JPEGs to use instead of drawn ones")
    p.add_argument("--weights", default="random", help="a Keras .h5 file; random ones by default")
    p.add_argument("--count", type=int, default=1000, help="images in a run (default %(default)s)")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--only", nargs="+", choices=sorted({c.module for c in CONTENDERS}), help="some of the programs")
    args = p.parse_args()
    from benchmarks.features import load_photos

    chosen = [c for c in CONTENDERS if not args.only or c.module in args.only]
    for contender in [c for c in chosen if importlib.util.find_spec(c.needs) is None]:
        print(f"{contender.name}: {contender.needs} is not installed: pip install 'ray[data]' tensorflow-hub")
        chosen.remove(contender)
    photos = load_photos(args.images)
    with tempfile.TemporaryDirectory() as temporary:
        scratch = pathlib.Path(temporary)
        weights = args.weights if args.weights != "random" else _random_weights(scratch / "random.weights.h5")
        copy_images(photos, scratch / "good", args.count)
        copy_images(photos, scratch / "bad", args.count, bad=True)
        rounds: dict[str, list[Ran]] = {c.name: [] for c in chosen}
        features = {}
        for number in range(args.rounds):
            for contender in chosen:
                output = scratch / contender.module
                clear(output)
                ran = run(contender, scratch / "good", weights, output)
                if ran.watched.status:
                    sys.exit(f"{contender.name}: exit status {ran.watched.status}\n{ran.watched.tail}")
                rounds[contender.name].append(ran)
                features[contender.name] = read(contender, output)
                print(f"round {number + 1}: {contender.name} {ran.rate:.2f} images/s", file=sys.stderr, flush=True)
        first = rounds[chosen[0].name]
        print(f"\n{args.count} JPEGs, batch 16, medians of {args.rounds} rounds\n")
        print(f"{SPEED.format(chosen[0].name)}\n|---|---|---|---|---|---|---|---|")
        for name, runs in rounds.items():
            cells = [
                f"{_median(r.rate for r in runs):.1f}",
                f"{_median(r.rate / o.rate for r, o in zip(runs, first, strict=True)):.2f}",
                f"{_median(r.to_first_s for r in runs):.0f}",
                f"{_median(1e3 * r.watched.cpu_seconds / args.count for r in runs):.0f}",
                f"{_median(r.watched.seconds for r in runs):.0f}",
                f"{_median(r.watched.peak_mb for r in runs):,.0f}",
                f"{_cosine(features[chosen[0].name], features[name]):.4f}",
            ]
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
        print("\n| program | of three bad images |\n|---|---|")
        for contender in chosen:
            for variant in contender.variants:
                told = of_bad(contender, scratch / "bad", weights, scratch / contender.module, variant)
                print(f"| {contender.name}{f', {variant}' * bool(variant)} | {told} |", flush=True)
        print("\n| program | computed until SIGKILL | by the second run | of these again | images in the output |")
        print("|---|---|---|---|---|")
        for contender in filter(lambda one: one.variants, chosen):
            cells = of_kill(contender, scratch / "good", weights, scratch / contender.module)
            print(f"| {contender.name} | " + " | ".join(cells) + " |", flush=True)


def _median(values: Iterator[float]) -> float:
    return statistics.median(values)


def _cosine(mine: dict[str, list[np.ndarray]], theirs: dict[str, list[np.ndarray]]) -> float:
    """The least over all images: the programs resize in different ways, and one of them stores float16."""
    pairs = [(mine[name][0], theirs[name][0]) for name in mine.keys() & theirs.keys()]
    return min(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in pairs)


def _random_weights(path: pathlib.Path) -> str:
    """Those of `--weights random`, as a file."""
    from tfrecords_schema.networks import random_weights, registry

    random_weights.build(registry.find_network("inception_v3")).save_weights(path)
    return str(path)


if __name__ == "__main__":
    main()

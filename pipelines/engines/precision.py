"""`--precision auto`: what it stands for, found out once for each output, before anything is computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pipelines.engines.engine import Engine
from pipelines.output.progress import waiting
from pipelines.vision import timing
from pipelines.vision.extractors import SAVED_MODEL, Extractor
from pipelines.vision.networks import PRECISIONS
from pipelines.vision.timing import Timed, TimingError

# Loading a network twice takes some 20 seconds, which half of the time of fewer images would not bring back.
_WORTH_TIMING = 1000
_TIMING = "timing the network in several precisions"


def settle(
    extractor: Extractor,
    engine: Engine,
    recorded: Any,
    images: int,
    measure: Callable[[Extractor], Sequence[Timed]] = timing.measure,
) -> str:
    """The precision that `--precision auto` stands for; where none is recorded, prints which it is, and why.

    Args:
      extractor: in the precision that is taken where nothing can be found out.
      recorded: what an earlier run of the same output computed in, which stays, so that its features fit the others.
      images: how many there are.
      measure: times the extractor, which is of the registry, on this machine.
    """
    if recorded in PRECISIONS:
        return recorded
    precision, why = _found_out(extractor, engine, images, measure)
    print(f"precision   {precision}: {why}", flush=True)
    return precision


def _found_out(
    extractor: Extractor, engine: Engine, images: int, measure: Callable[[Extractor], Sequence[Timed]]
) -> tuple[str, str]:
    if extractor.name == SAVED_MODEL:
        return "float32", "a SavedModel runs as it was saved"
    if not engine.computes_here:
        return (
            extractor.precision,
            "other machines may compute, so nothing was timed; give --precision if they are fast at another",
        )
    if not timing.is_worthwhile():
        return "float32", "this machine has no instructions for bfloat16, and no GPU"
    if images < _WORTH_TIMING:
        return "float32", f"nothing was timed for fewer than {_WORTH_TIMING:,} images; give --precision for another"
    try:
        with waiting(_TIMING):
            timed = measure(extractor)
    except TimingError as error:
        return "float32", f"timing others failed ({error})"
    exact, *others = timed
    told = [f"{one.precision} {one.images_per_second:.1f} (least cosine {one.cosine:.4f})" for one in others]
    rates = ", ".join([f"{exact.precision} {exact.images_per_second:.1f} images/s", *told])
    return timing.fastest(timed), f"timed on this machine: {rates}"

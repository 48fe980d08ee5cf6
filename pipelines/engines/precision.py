"""`--precision auto`: what it stands for, found out once for each output, before anything is computed."""

from __future__ import annotations

from typing import Any

from pipelines.engines.engine import Engine
from pipelines.listing.catalogue import Catalogue
from pipelines.output.progress import waiting
from pipelines.vision import timing
from pipelines.vision.extractors import SAVED_MODEL, Extractor
from pipelines.vision.reading import Reading
from tfrecords_schema.networks.registry import PRECISIONS

# Loading a network twice takes some 20 seconds, which half of the time of fewer images would not bring back.
_WORTH_TIMING = 1000
_TRIED = 32  # images
_TIMING = "timing the network in several precisions"


def settle(extractor: Extractor, engine: Engine, recorded: Any, catalogue: Catalogue, reading: Reading) -> str:
    """The precision that `--precision auto` stands for; where none is recorded, prints which it is, and why.

    Args:
      extractor: in the precision that is taken where nothing can be found out.
      recorded: what an earlier run of the same output computed in, which stays, so that its features fit the others.
      catalogue: of the images; the network is tried on some of them.

    Raises:
      InputError: the weights are not there.
    """
    if recorded in PRECISIONS:
        return recorded
    precision, why = _found_out(extractor, engine, catalogue, reading)
    print(f"precision   {precision}: {why}", flush=True)
    return precision


def _found_out(extractor: Extractor, engine: Engine, catalogue: Catalogue, reading: Reading) -> tuple[str, str]:
    if extractor.name == SAVED_MODEL:
        return "float32", "a SavedModel runs as it was saved"
    if not engine.computes_here:
        return extractor.precision, "other machines may compute, so nothing was timed; --precision sets another"
    if not timing.is_worthwhile():
        return "float32", "this machine has no bfloat16 instructions and no GPU"
    if sum(catalogue.counts().values()) < _WORTH_TIMING:
        return "float32", f"other precisions are timed from {_WORTH_TIMING:,} images on; --precision sets one"
    try:
        with waiting(_TIMING):
            timed = timing.measure(extractor, catalogue.sample(_TRIED), reading)
    except timing.TimingError as error:
        return "float32", f"other precisions could not be timed ({error})"
    return timing.fastest(timed), timing.told(timed)

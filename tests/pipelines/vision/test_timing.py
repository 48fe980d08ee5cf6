"""Which precision is fastest: the choice from given figures, and figures of real networks."""

import numpy as np
import pytest

from pipelines.items import Item
from pipelines.vision import timing
from pipelines.vision.extractors import Extractor
from pipelines.vision.reading import Reading
from pipelines.vision.timing import Timed
from tfrecords_schema.networks import random_weights, registry

READING = Reading(4, 10_000_000, 0)


@pytest.mark.parametrize(
    ("timed", "expected"),
    [
        ([("float32", 18.0, 1.0)], "float32"),
        ([("float32", 18.0, 1.0), ("bfloat16", 36.5, 0.9998)], "bfloat16"),
        ([("float32", 18.0, 1.0), ("bfloat16", 36.5, 0.9995)], "bfloat16"),
        ([("float32", 18.0, 1.0), ("bfloat16", 36.5, 0.9994)], "float32"),
        ([("float32", 18.0, 1.0), ("bfloat16", 36.5, -1.0)], "float32"),
        ([("float32", 18.0, 1.0), ("bfloat16", 13.2, 0.9998)], "float32"),
        ([("float32", 20.0, 1.0), ("bfloat16", 20.9, 0.9998)], "float32"),
        ([("float32", 20.0, 1.0), ("bfloat16", 21.0, 0.9998)], "bfloat16"),
        ([("float32", 9.0, 1.0), ("bfloat16", 30.0, 0.9), ("float16", 20.0, 0.9999)], "float16"),
    ],
)
def test_the_fastest_that_is_near_enough(timed, expected):
    assert timing.fastest([Timed(*one) for one in timed]) == expected


def test_why_the_faster_one_is_not_taken():
    exact, near = Timed("float32", 16.2, 1.0), Timed("bfloat16", 28.1, 0.9998)
    assert timing.told([exact, Timed("bfloat16", 28.1, 0.999)]) == (
        "bfloat16 would be faster (28.1 against 16.2 images/s), but its features differ too much (least cosine 0.9990, "
        "needed 0.9995)"
    )
    for other in (near, Timed("bfloat16", 13.2, 0.999)):
        assert timing.told([exact, other]) == f"timed on this machine: {exact}, {other}"


@pytest.mark.parametrize(
    ("flags", "has_gpu", "expected"),
    [
        ({"avx512_bf16", "avx2"}, False, ("float32", "bfloat16")),
        ({"bf16", "asimd"}, False, ("float32", "bfloat16")),
        ({"amx_bf16"}, False, ("float32", "bfloat16")),
        ({"avx2", "avx512f"}, False, ("float32",)),
        (set(), False, ("float32",)),
        ({"avx512_bf16"}, True, ("float32", "float16")),
    ],
)
def test_what_is_timed(flags, has_gpu, expected):
    assert timing.candidates(frozenset(flags), has_gpu) == expected


def test_a_network_in_several_precisions(tiny_network):
    """Six images in batches of four: the second batch begins again with the first images."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    exact, lower = timing.time_here([tiny_network, "random", 4, False], pixels, ("float32", "bfloat16"))
    assert (exact.precision, lower.precision) == ("float32", "bfloat16")
    assert exact.images_per_second > 0 and lower.images_per_second > 0
    assert exact.cosine == pytest.approx(1, abs=1e-6) and 0.9995 < lower.cosine < 1 - 1e-7


def test_the_least_cosine_is_taken_and_what_is_no_number_is_none():
    exact = np.array([[1.0, 0.0], [0.0, 2.0]], np.float32)
    assert timing._least_cosine(np.array([[3.0, 0.0], [3.0, 4.0]], np.float32), exact) == pytest.approx(0.8)
    assert timing._least_cosine(np.array([[3.0, 0.0], [np.nan, 4.0]], np.float32), exact) == -1


def test_a_process_that_breaks_is_told(tiny_network, coco_dir):
    """The other process has only the registry's networks, not that of the tests."""
    items = [Item(str(n), str(path)) for n, path in enumerate(sorted((coco_dir / "val2017").iterdir()))]
    with pytest.raises(timing.TimingError, match=r"^exit status 1: .*--extractor: expected one of inception_v3"):
        timing.measure(Extractor(tiny_network, "random", 4), items, READING)


def test_images_that_cannot_be_read(tiny_network, tmp_path):
    items = [Item("0", str(tmp_path / "none.jpg"))]
    with pytest.raises(timing.TimingError, match=r"^none of 1 images could be read$"):
        timing.measure(Extractor(tiny_network, "random", 4), items, READING)


X86 = "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx512_bf16 avx2\nbugs\t\t: none\n"
ARM = "processor\t: 0\nBogoMIPS\t: 2100.00\nFeatures\t: fp asimd bf16 i8mm\n"


@pytest.mark.parametrize(
    ("text", "flags"),
    [(X86, {"fpu", "avx512_bf16", "avx2"}), (ARM, {"fp", "asimd", "bf16", "i8mm"}), ("", set()), (None, set())],
)
def test_what_linux_says_of_a_processor_and_other_systems_do_not(tmp_path, text, flags):
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    assert timing.processor_flags(str(tmp_path / "cpuinfo")) == flags


@pytest.mark.slow
def test_a_real_network_in_a_process_of_its_own(coco_dir, tmp_path, monkeypatch):
    """Through a weights file; the flag has bfloat16 timed, which any processor can do, if slowly."""
    weights = str(tmp_path / "inception.weights.h5")
    random_weights.build(registry.NETWORKS["inception_v3"]).save_weights(weights)
    items = [Item(str(n), str(path)) for n, path in enumerate(sorted((coco_dir / "val2017").iterdir()))]
    items.append(Item("none", str(tmp_path / "none.jpg")))
    monkeypatch.setattr(timing, "processor_flags", lambda: frozenset({"bf16"}))
    exact, lower = timing.measure(Extractor("inception_v3", weights, 2), items, READING)
    assert (exact.precision, lower.precision) == ("float32", "bfloat16")
    assert exact.cosine == pytest.approx(1, abs=1e-5) and 0.99 < lower.cosine < 1

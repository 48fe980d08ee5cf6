"""Which processors multiply bfloat16, and oneDNN's automatic bfloat16 for one function and no other."""

import os
import subprocess
import sys

import pytest

from pipelines.vision import onednn
from tests.support import ROOT

X86 = "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx512_bf16 avx2\nbugs\t\t: none\n"
ARM = "processor\t: 0\nBogoMIPS\t: 2100.00\nFeatures\t: fp asimd bf16 i8mm\n"


@pytest.mark.parametrize(
    ("text", "flags", "has"),
    [
        (X86, {"fpu", "avx512_bf16", "avx2"}, True),
        (X86.replace("avx512_bf16", "avx512f"), {"fpu", "avx512f", "avx2"}, False),
        (X86.replace("avx512_bf16", "amx_bf16"), {"fpu", "amx_bf16", "avx2"}, True),
        (ARM, {"fp", "asimd", "bf16", "i8mm"}, True),
        ("", set(), False),
    ],
)
def test_what_linux_says_of_a_processor(tmp_path, text, flags, has):
    (tmp_path / "cpuinfo").write_text(text)
    assert onednn.processor_flags(str(tmp_path / "cpuinfo")) == flags
    assert onednn.has_bfloat16(onednn.processor_flags(str(tmp_path / "cpuinfo"))) is has


def test_other_systems_say_nothing(tmp_path):
    assert onednn.processor_flags(str(tmp_path / "none")) == frozenset()


@pytest.mark.parametrize(
    ("precision", "flags", "has_gpu", "switch", "expected"),
    [
        ("bfloat16", {"avx512_bf16"}, False, None, True),
        ("bfloat16", {"amx_bf16"}, False, "1", True),
        ("bfloat16", {"avx512_bf16"}, False, "0", False),
        ("bfloat16", {"avx512_bf16"}, False, "False", False),
        ("bfloat16", {"avx512_bf16"}, True, None, False),
        ("bfloat16", {"avx512f"}, False, None, False),
        ("bfloat16", {"bf16"}, False, None, False),
        ("float16", {"avx512_bf16"}, False, None, False),
        ("float32", {"avx512_bf16"}, False, None, False),
    ],
)
def test_the_way_of_a_precision(precision, flags, has_gpu, switch, expected):
    environment = {"TF_ENABLE_ONEDNN_OPTS": switch} if switch else {}
    assert onednn.is_way(precision, frozenset(flags), has_gpu, environment) is expected


CODE = """
import threading
import numpy as np
from pipelines.vision import onednn
from tfrecords_schema.quiet import import_tensorflow

tf = import_tensorflow()
matrix = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
weight = tf.Variable(matrix)  # as a network's are
spec = tf.TensorSpec([64, 64], tf.float32)
lower = onednn.in_bfloat16(tf, lambda given: tf.matmul(given, weight), spec)
rounded = tf.cast(matrix, tf.bfloat16)
expected = tf.cast(tf.matmul(rounded, rounded), tf.float32).numpy()
exact = matrix.astype(np.float64) @ matrix
distance = lambda found, wanted: float(np.abs(found - wanted).max())

def check():
    found = lower(tf.constant(matrix)).numpy()
    assert distance(found, expected) < 0.07 < distance(found, exact)
    other = tf.function(lambda given: tf.matmul(given, weight))  # as the caption decoder's
    assert distance(other(tf.constant(matrix)).numpy(), exact) < 1e-4
    checked.append(threading.current_thread().name)

checked = []
check()
thread = threading.Thread(target=check, name="another")
thread.start()
thread.join()
assert checked == ["MainThread", "another"]
assert tf.config.optimizer.get_experimental_options()["auto_mixed_precision_onednn_bfloat16"] is False
"""


def test_one_function_runs_in_bfloat16_and_no_other_does():
    """In a process of its own, where oneDNN is on: processors without the instructions have other kernels."""
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "1"}
    found = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr

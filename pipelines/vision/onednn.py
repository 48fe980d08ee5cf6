"""bfloat16 on CPUs: whether this processor multiplies it, and oneDNN's automatic bfloat16 for one function alone."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

_X86 = frozenset({"avx512_bf16", "amx_bf16"})
_BFLOAT16 = _X86 | {"bf16"}  # ARM's
_OPTION = "auto_mixed_precision_onednn_bfloat16"
_SWITCH = "TF_ENABLE_ONEDNN_OPTS"
_tracing = threading.Lock()


def processor_flags(path: str = "/proc/cpuinfo") -> frozenset[str]:
    """What Linux says that the first processor can do; nothing on other systems."""
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            name, _, flags = line.partition(":")
            if name.strip() in ("flags", "Features"):  # of x86, of ARM
                return frozenset(flags.split())
    return frozenset()


def has_bfloat16(flags: frozenset[str]) -> bool:
    """Whether a processor with these flags has instructions that multiply bfloat16; they may be slow ones."""
    return bool(flags & _BFLOAT16)


def is_way(precision: str, flags: frozenset[str], has_gpu: bool, environment: Mapping[str, str] = os.environ) -> bool:
    """The one place that says how a forward pass in `precision` is made: by `in_bfloat16`, or else by Keras' policy.

    By oneDNN on x86 with the instructions, where TensorFlow has oneDNN switched on unless its variable says otherwise.
    Elsewhere it is mostly switched off, and then the option would do nothing: float32 in the name of bfloat16.
    """
    is_off = environment.get(_SWITCH, "1").lower() in ("0", "false")
    return precision == "bfloat16" and not has_gpu and not is_off and bool(flags & _X86)


def in_bfloat16(tf: Any, body: Callable[[Any], Any], signature: Any) -> Callable[[Any], Any]:
    """A function of float32 operations, traced, that runs in bfloat16 where that is safe.

    TensorFlow's graph optimiser does it: convolutions and products of matrices get casts around them, and what lies
    between two of them goes along. The option is the process', and would reach the caption decoder too, whose scores it
    changes. So it is set while the function is traced alone: as a function that is called by another it keeps the
    options that it was traced with, as long as it is not merged into its caller.

    Args:
      body: of one tensor, as `signature`, a TensorSpec, says.
    """
    inner = tf.function(body, input_signature=[signature], experimental_attributes={"_noinline": True})
    with _tracing:
        before = tf.config.optimizer.get_experimental_options().get(_OPTION, False)
        tf.config.optimizer.set_experimental_options({_OPTION: True})
        try:
            return tf.function(lambda given: inner(given), input_signature=[signature]).get_concrete_function()
        finally:
            tf.config.optimizer.set_experimental_options({_OPTION: before})

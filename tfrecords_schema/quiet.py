"""Imports TensorFlow without its start-up notes, which would tear a progress bar and tell a user nothing."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import threading
from types import ModuleType

# An engine's worker loads models in several threads. While one imports TensorFlow, its module is there but half empty.
_LOCK = threading.Lock()
_NOTES = (b"I0000", b"W0000", b"WARNING: All log messages before absl")


def import_tensorflow() -> ModuleType:
    """The `tensorflow` module.

    Its C++ parts write notes ("oneDNN custom operations are on", "Could not find cuda drivers") straight to file
    descriptor 2 before any log level counts. They are held back while it is imported for the first time; everything
    else that was written is passed on.
    """
    with _LOCK:
        if "tensorflow" not in sys.modules:
            _first_import()
    import tensorflow  # waits where somebody else's plain import is under way

    return tensorflow


def _first_import() -> None:
    # Errors too reach Python as exceptions; what is logged as one besides ("oneDNN supports DT_HALF only on platforms
    # with AVX-512", on a CPU without it) only names a slower way that is taken.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow leaves oneDNN out on processors without AVX-512, where it is the faster one too.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    sys.stderr.flush()
    kept = os.dup(2)
    collects = gc.isenabled()
    gc.disable()  # else half a million objects that stay are looked through again and again, a fifth of the time
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            import tensorflow

            tensorflow.config.list_physical_devices()  # looks for GPUs now, which writes notes of its own
        finally:
            if collects:
                gc.enable()
            os.dup2(kept, 2)
            os.close(kept)
            held.seek(0)
            for line in held:
                if not line.startswith(_NOTES) and b"cuInit" not in line:  # without a GPU, that is no failure
                    os.write(2, line)

"""What TensorFlow 1 saved of a model: the tensors of a checkpoint, or of a frozen graph, by name."""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tfrecords_schema.errors import InputError
from tfrecords_schema.quiet import import_tensorflow
from tfrecords_schema.storage import copies, files, finding, paths
from tfrecords_schema.text import shortened

_FILE_OF_V2 = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")
# What im2txt's own programs feed and fetch, `show_and_tell_model.py`; other architectures have others.
_NODES = ("image_feed", "input_feed", "lstm/initial_state", "lstm/state_feed", "lstm/state", "softmax")


class Tensors:
    """The tensors of one model.

    Args:
      where: the flag and the file; begins a message.
      found: by name, of any type of float.
    """

    def __init__(self, where: str, found: Mapping[str, np.ndarray]):
        self.where, self._found = where, found

    def take(self, shape: tuple[int | None, ...], *names: str) -> np.ndarray:
        """The tensor of one of these names, the first that there is, float32.

        Args:
          shape: that it must have; None for any size.

        Raises:
          InputError: there is none, or it has another shape, or not numbers alone.
        """
        sizes = ", ".join("any" if size is None else str(size) for size in shape)
        expected = f"{self.where}: expected im2txt's Show and Tell, with a tensor {names[0]} [{sizes}], found"
        tensor = next((self._found[name] for name in names if name in self._found), None)
        if tensor is None:
            raise InputError(f"{expected} none of this name")
        if len(tensor.shape) != len(shape) or any(s not in (None, t) for s, t in zip(shape, tensor.shape, strict=True)):
            raise InputError(f"{expected} {list(tensor.shape)}")
        values = tensor.astype(np.float32)
        if not np.isfinite(values).all():
            raise InputError(f"{expected} values that are infinite or no numbers")
        return values


def of_checkpoint(flag: str, path: str) -> Tensors:
    """A checkpoint, V1 (one file) or V2 (files that begin with `path`); of a local directory its latest.

    Raises:
      InputError: there is none, or it cannot be read, or is damaged.
    """
    tf = import_tensorflow()
    path = _FILE_OF_V2.sub("", path)
    where = f"{flag}: {path}"
    try:
        with _local(path) as local:
            reader = tf.train.load_checkpoint(local)
            # All of them: what is damaged anywhere is told.
            return Tensors(where, {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()})
    except (tf.errors.OpError, IndexError, OSError, RuntimeError, ValueError) as error:
        told = shortened(files.reason(error), 200)
        raise InputError(f"{where}: expected a whole checkpoint of TensorFlow, found what is none: {told}") from None


@contextlib.contextmanager
def _local(path: str) -> Iterator[str]:
    """Where a checkpoint is on this machine while this is entered: where it was, or a copy."""
    if paths.is_local(path):
        yield path
        return
    folder, name = posixpath.split(path)
    with tempfile.TemporaryDirectory(prefix="captioning-") as copied:
        copies.fetch(folder, [found for found in finding.names(folder) if found.startswith(name)], copied)
        yield os.path.join(copied, name)


def of_graph(flag: str, path: str) -> Tensors:
    """The constants of a frozen graph.

    Raises:
      InputError: it is no graph, or not one of im2txt that captions one photo.
    """
    tf = import_tensorflow()
    from google.protobuf.message import DecodeError

    where = f"{flag}: {path}"
    try:
        graph: Any = tf.compat.v1.GraphDef.FromString(files.read_input_bytes(flag, path))
    except DecodeError as error:
        raise InputError(f"{where}: expected a frozen graph of TensorFlow, found what is none: {error}") from None
    nodes = {node.name: node for node in graph.node}
    missing = [name for name in _NODES if name not in nodes]
    if missing:
        expected = f"a frozen graph of im2txt with the nodes {', '.join(_NODES)}"
        raise InputError(f"{where}: expected {expected}, found {len(nodes):,} nodes without {missing[0]}")
    constants = {name: node.attr["value"].tensor for name, node in nodes.items() if node.op == "Const"}
    return Tensors(where, {name: tf.make_ndarray(tensor) for name, tensor in constants.items()})

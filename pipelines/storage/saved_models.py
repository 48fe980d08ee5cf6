"""SavedModels, looked at without being loaded: loading one would take the GPU, all of it, from the workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from tfrecords_schema.errors import InputError
from tfrecords_schema.quiet import import_tensorflow
from tfrecords_schema.storage import files, paths
from tfrecords_schema.text import one_line

FILE = "saved_model.pb"
_Loaded = TypeVar("_Loaded")


def signatures(directory: str, where: str) -> dict[str, Any]:
    """Each signature of the graph that serves, a `SignatureDef` of TensorFlow's, by its name.

    Raises:
      InputError: its file cannot be read; begins with `where`.
    """
    import_tensorflow()
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    path, saved = paths.join(directory, FILE), saved_model_pb2.SavedModel()
    try:
        saved.ParseFromString(files.read_bytes(path))
    except (DecodeError, OSError) as error:
        raise InputError(
            f"{where}: expected a whole SavedModel, found {path}: {one_line(error)}; make it again"
        ) from None
    graphs = [graph for graph in saved.meta_graphs if "serve" in graph.meta_info_def.tags]
    return dict(graphs[0].signature_def) if graphs else {}


def shapes(tensors: Any) -> dict[str, list[int | None]]:
    """The shape of each of a signature's inputs or outputs; [] where it is not known at all."""
    return {
        name: [None if axis.size < 0 else axis.size for axis in tensors[name].tensor_shape.dim]
        for name in sorted(tensors)
    }


def told(load: Callable[[], _Loaded], where: str) -> _Loaded:
    """What `load` gives of a SavedModel, whose files can hold anything. Raises InputError, beginning with `where`."""
    tf = import_tensorflow()
    try:
        return load()
    except InputError:
        raise
    except tf.errors.ResourceExhaustedError:
        raise  # nothing is wrong with the files
    except (
        AttributeError,
        KeyError,
        IndexError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
        tf.errors.OpError,
    ) as error:
        raise InputError(f"{where}: expected a whole SavedModel, found: {one_line(error)}; make it again") from None

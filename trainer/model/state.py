"""What a decoder knows of images, and where its hypotheses stand."""

from __future__ import annotations

from typing import Any, NamedTuple


class Image(NamedTuple):
    """What the decoder knows of B images; computed once, however many words and hypotheses follow.

    Attributes:
      embedding: `[B, E]`, of the whole image; its features `[B, F]` where one layer makes the first states of them.
      positions, keys: with attention, `[B, P, E]` and `[B, P, A]`; otherwise (), which tf.nest passes over.
    """

    embedding: Any
    positions: Any = ()
    keys: Any = ()


class State(NamedTuple):
    """Where N hypotheses stand.

    Attributes:
      layers: for each recurrent layer the tensors `[N, U]` of its cell.
      attention: with attention, the weights `[N, P]` of the last word; otherwise ().
    """

    layers: tuple[tuple[Any, ...], ...]
    attention: Any = ()

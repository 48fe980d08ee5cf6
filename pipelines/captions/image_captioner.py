"""Images -> captions in this process, at once: what `pipelines.load` gives, and what the screen is written from."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import posixpath
from collections.abc import Callable, Sequence
from typing import Any, overload

import numpy as np

from pipelines.captions import exports, model_features
from pipelines.captions.captioner import Caption, Captioner
from pipelines.captions.captioning import Captioned, Captioning
from pipelines.captions.word_ids import word_ids
from pipelines.clock import StageClock
from pipelines.items import ImageError, Item, Reject
from pipelines.settings.caption import Network
from pipelines.settings.search import Search
from pipelines.vision.images import MAX_PIXELS
from pipelines.vision.reading import Reading
from tfrecords_schema import command
from tfrecords_schema.manifests.model_info import ModelInfo
from tfrecords_schema.text import did_you_mean
from tfrecords_schema.vocabulary import Vocabulary


def load(
    model: str | os.PathLike[str],
    *,
    weights: str | None = None,
    precision: str | None = None,
    batch_size: int = 16,
    max_pixels: int = MAX_PIXELS,
    capitalise: bool = False,
    **search: Any,
) -> ImageCaptioner:
    """An export of the trainer, local or remote, with all that it needs in memory.

    Args:
      weights, precision, max_pixels, capitalise: as the flags of `python -m pipelines.caption`.
      batch_size: images in a forward pass, at most.
      search: as the command's flags too: `beam_width=5`. A call can ask otherwise.

    Raises:
      InputError: it is no export, is damaged, or an option does not fit it.
      TypeError: there is no such option.
    """
    asked = _asking(Search(), search, ("weights", "precision", "batch_size", "max_pixels", "capitalise"))
    place = os.fspath(model)
    info, vocabulary = exports.open_model(place)
    network = Network(weights=weights, precision=precision)
    reading = Reading(max_pixels=max_pixels)
    features, _ = model_features.features_of(place, info, network, reading, batch_size, at_once=True)
    resolved = asked.resolved(info)
    words = word_ids(resolved, vocabulary)
    exports.check_model(place, info)
    captioner = Captioner(place, resolved, words, exports.has_attention(info), capitalise, at_once=True)
    return ImageCaptioner(Captioning(features, captioner).load(), asked, info, vocabulary)


def caption(captioning: Captioning, items: Sequence[Item], load: Callable[[], Captioning]) -> list[Captioned | Reject]:
    """Each item with its captions, or why it has none, in their order.

    Args:
      load: gives the same, loaded; called when the first image is there.
    """
    made: dict[int, Captioned | Reject] = {}
    rejects: dict[tuple[str, str], Reject] = {}
    for outcome in captioning.batches(list(items), StageClock(), load):
        if isinstance(outcome, Reject):
            rejects[outcome.image_id, outcome.image_uri] = outcome
        else:
            made.update((item.position, one) for item, one in outcome)
    return [made[i.position] if i.position in made else rejects[i.id, i.uri] for i in items]


class ImageCaptioner:
    """Images -> captions. `pipelines.load` makes one; calls are safe from several threads.

    Attributes:
      captioning: loaded, with the options that `load` was given.
      info: what the model says of itself.
      vocabulary: its words.
    """

    def __init__(self, captioning: Captioning, asked: Search, info: ModelInfo, vocabulary: Vocabulary):
        self.captioning, self._asked = captioning, asked
        self.info, self.vocabulary = info, vocabulary

    @overload
    def __call__(self, images: list[Any] | tuple[Any, ...], **search: Any) -> list[list[Caption] | ImageError]: ...

    @overload
    def __call__(self, images: Any, **search: Any) -> list[Caption]: ...

    def __call__(self, images: Any, **search: Any) -> list[Caption] | list[list[Caption] | ImageError]:
        """The captions of an image, best first; of a list of images a list of these, or of what is wrong with one.

        Args:
          images: one, or a list: the path or URI of a file, the bytes of one, an image of Pillow's, or pixels, uint8
            `[height, width]`, `[height, width, 3]` RGB or `[height, width, 4]` RGBA.
          search: options that this call asks otherwise than `load` did.

        Raises:
          ImageError: the only image cannot be used; has `stage`, `error` and `message`, as a rejects table would.
          InputError: an option does not fit.
          TypeError: an image is none of these, or there is no such option.
        """
        several = isinstance(images, list | tuple)
        items = [as_item(image, place) for place, image in enumerate(images if several else [images])]
        found = [
            ImageError(one.stage, one.error, one.message) if isinstance(one, Reject) else one.captions
            for one in self.caption(items, **search)
        ]
        if several:
            return found
        if isinstance(found[0], ImageError):
            raise found[0]
        return found[0]

    def caption(self, items: Sequence[Item], **search: Any) -> list[Captioned | Reject]:
        """The captions of Items, as `as_item` makes them: each with its size, or its row of a rejects table."""
        captioning = self.captioning
        if search:
            captioning = dataclasses.replace(captioning, captioner=self.asking(**search))
        return caption(captioning, items, lambda: captioning)

    def asking(self, **search: Any) -> Captioner:
        """A captioner of the same model with the options of a call. Raises as `__call__`."""
        asked = _asking(self._asked, search).resolved(self.info)
        return self.captioning.captioner.with_search(asked, word_ids(asked, self.vocabulary))


def _asking(asked: Search, search: dict[str, Any], further: tuple[str, ...] = ()) -> Search:
    """A search with other options. Raises TypeError where there is none such; `further` may be asked for besides."""
    known = command.names(Search)
    for name in search:
        if name not in known:
            every = [*known, *further]
            way = did_you_mean(name, every)
            raise TypeError(f"unknown option {name!r}{f'{way} T' if way else '; t'}here are {', '.join(every)}")
    return dataclasses.replace(asked, **search)


def as_item(image: Any, position: int = 0) -> Item:
    """What ImageCaptioner takes, as what the pipelines' rooms pass on.

    Its id, which drawn captions follow from, is that of a file as a table has it; of bytes their digest; else its place
    in the list.

    Raises:
      TypeError: it is no image.
    """
    if isinstance(image, str | os.PathLike) and isinstance(uri := os.fspath(image), str):
        return Item(posixpath.splitext(posixpath.basename(uri))[0], uri, position=position)
    name = str(position)
    if isinstance(image, bytes | bytearray | memoryview):
        image = bytes(image)
        name = hashlib.sha256(image).hexdigest()
    else:
        image = _picture(image)
    return Item(name, f"image {position}", position=position, given=image)


def _picture(pixels: Any) -> Any:
    from PIL import Image

    if isinstance(pixels, Image.Image):
        return pixels
    array = np.asarray(pixels)
    shape = list(array.shape)
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and shape[2] in (3, 4))) or not array.size:
        found = f"{array.dtype} {shape}" if array.ndim else type(pixels).__name__
        raise TypeError(
            "expected a path, bytes, an image of Pillow's or uint8 pixels [height, width] with 3, 4 or no channels, "
            f"found {found}"
        )
    return Image.fromarray(array)

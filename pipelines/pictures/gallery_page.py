"""Captioned images -> a web page in one file, which sends no request and runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.resources
import io
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from pipelines.items import ImageError
from pipelines.pictures import looks
from tfrecords_schema.manifests import caption_table
from tfrecords_schema.vocabulary import normalise

if TYPE_CHECKING:
    from PIL import Image

_JPEG_QUALITY = 80
_DIGEST = 12  # letters of a digest, enough to tell models apart
_OWN_COLUMNS = {*caption_table.COLUMNS, caption_table.ATTENTION}
# Of report.json's options, those that say how the captions were found -> their names on the page.
_OPTIONS = {
    "model": "Model digest",
    "beam_width": "Beam width",
    "length_penalty": "Length penalty",
    "max_length": "Longest caption",
    "temperature": "Temperature",
    "top_p": "Top p",
    "seed": "Seed",
    "precision": "Precision",
}
# HTML has no zero byte, and shows no other control character: each becomes the sign for it, U+2400 and so on.
_CONTROLS: dict[int, int | str] = {
    **{code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n\r"},
    0x7F: 0x2421,
    0x0D: "&#13;",
}

_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title} · captioned images</title>
<style>{style}</style>
</head>
<body>
<a class="skip" href="#images">Skip to the images</a>
<header>
<p class="label">Captioned images</p>
<h1 dir="auto">{title}</h1>
<dl class="facts">{facts}</dl>
<p class="note">{note}</p>
</header>
<div class="filter" role="search" hidden>
<label for="filter">Filter captions</label>
<input id="filter" type="search" autocomplete="off" spellcheck="false">
<output id="shown" for="filter"></output>
</div>
<main id="images" tabindex="-1">
"""
_FOOT = """</main>
<p id="looks" class="visually-hidden" role="status"></p>
<script>{script}</script>
</body>
</html>
"""
_LOG_PROBABILITY = "A log probability nearer to 0 means a surer model."
_WORDS = "Point at a word, or press it, to see where the model looked; Escape clears. The number is the largest weight."


class Page:
    """A page that images are added to, one after the other. They wait in a temporary file, so memory stays flat."""

    def __init__(self):
        self._figures = tempfile.TemporaryFile()  # noqa: SIM115
        self._positions: set[int] = set()  # of the grids that words have looked at

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_) -> None:
        self._figures.close()

    def add(
        self,
        row: Mapping[str, Any],
        image: Image.Image | ImageError,
        references: Sequence[str] = (),
        cider: float | None = None,
    ) -> None:
        """Shows one more image; the arguments are those of `figure`."""
        shown = figure(row, image, references, cider)
        if "<button" in shown:
            self._positions |= {len(entry["weights"]) for entry in _looked(row) if entry.get("weights")}
        self._figures.write(shown.encode("utf-8"))

    def save(self, handle: BinaryIO, title: str, counts: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        """Writes the whole page.

        Args:
          title: the table's name.
          counts: what stands under it, name -> value.
          options: report.json's; those that say how the captions were found are shown too.
        """
        found = {name: str(options[key])[:_DIGEST] for key, name in _OPTIONS.items() if options.get(key) is not None}
        facts = {**counts, **found}
        # Allowed by their digests: a script or style of a caption would not run even if it were not escaped.
        policy = "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        policy += f"style-src {_source('gallery_page.css')}; script-src {_source('gallery_page.js')}"
        head = _HEAD.format(
            policy=policy,
            title=text(title),
            style=_asset("gallery_page.css"),
            facts="".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in facts.items()),
            note=" ".join([_LOG_PROBABILITY, _WORDS, *map(looks.scale, sorted(self._positions))])
            if self._positions
            else _LOG_PROBABILITY,
        )
        handle.write(head.encode("utf-8"))
        self._figures.seek(0)
        shutil.copyfileobj(self._figures, handle)
        handle.write(_FOOT.format(script=_asset("gallery_page.js")).encode("utf-8"))


def figure(
    row: Mapping[str, Any],
    image: Image.Image | ImageError,
    references: Sequence[str] = (),
    cider: float | None = None,
) -> str:
    """The HTML of one image with what is known of it.

    Args:
      row: of a caption table, with any further columns; values may be None.
      image: RGB, as it is to be shown; or why it cannot be.
      references: what people said of it.
      cider: of the caption, times 100.
    """
    shown = not isinstance(image, ImageError)
    photo = _missing(image) if isinstance(image, ImageError) else _photo(row, image)
    scores = [f"log probability {_number(row['log_prob'])}"] if row.get("log_prob") is not None else []
    scores += [f"CIDEr {cider:.1f}"] if cider is not None else []
    said = "".join(f'<li dir="auto">{text(reference)}</li>' for reference in references)
    parts = [
        f'<figure aria-label="Image {text(row.get("image_id"))}">',
        f'<div class="photo">{photo}</div>',
        f"<figcaption>{_caption(row, with_words=shown)}</figcaption>",
        f'<p class="scores">{" · ".join(f"<span>{score}</span>" for score in scores)}</p>' if scores else "",
        f'<div class="references"><p class="label">References</p><ul>{said}</ul></div>' if said else "",
        _details(row),
        "</figure>\n",
    ]
    return "".join(parts)


def text(value: Any) -> str:
    """Any value as text in HTML, in an element or between double quotes; control characters become visible signs."""
    if isinstance(value, bytes):
        value = f"{len(value)} bytes"
    return html.escape("–" if value is None else str(value)).translate(_CONTROLS)


def _asset(name: str) -> str:
    return importlib.resources.files("pipelines.pictures").joinpath(name).read_text(encoding="utf-8")


def _source(name: str) -> str:
    """An inline style or script as a Content-Security-Policy allows it."""
    digest = hashlib.sha256(_asset(name).encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def _alternative(row: Mapping[str, Any]) -> str:
    return text(row.get("caption") or "no caption")


def _photo(row: Mapping[str, Any], image: Image.Image) -> str:
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG", quality=_JPEG_QUALITY)
    data = base64.b64encode(jpeg.getvalue()).decode()
    size = f'width="{image.width}" height="{image.height}"'
    return f'<img src="data:image/jpeg;base64,{data}" alt="{_alternative(row)}" {size}>'


def _missing(error: ImageError) -> str:
    return f'<p class="missing">The image cannot be read: {text(error.error)}, {text(error.message)}</p>'


def _caption(row: Mapping[str, Any], with_words: bool) -> str:
    """The caption; its words are buttons where it is known where the model looked."""
    plain = f'<div class="caption" dir="auto">{_alternative(row)}</div>'
    attention = _looked(row)
    words = [entry["word"] for entry in attention]
    pieces = (row.get("caption") or "").split(" ")
    # In the caption itself a word may have a capital, or a full stop behind it.
    same = list(map(normalise, pieces)) == list(map(normalise, words))
    buttons = [
        _word(piece, entry.get("weights")) for piece, entry in zip(pieces if same else words, attention, strict=True)
    ]
    if not (with_words and any(button.startswith("<button") for button in buttons)):
        return plain
    place = "caption" if same else "words"
    group = f'<div class="{place}" dir="auto" role="group" aria-label="Words of the caption">{" ".join(buttons)}</div>'
    return group if same else plain + group


def _looked(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [entry for entry in row.get(caption_table.ATTENTION) or [] if entry and entry.get("word")]


def _word(word: str, weights: Sequence[float] | None) -> str:
    found = looks.seen(weights)
    if found is None or weights is None:
        return f"<span>{text(word)}</span>"
    data = base64.b64encode(np.uint8(255 * found + 0.5).tobytes()).decode()
    attributes = f'data-seen="{data}" data-largest="{max(weights):.2f}"'
    return f'<button type="button" aria-pressed="false" {attributes}>{text(word)}</button>'


def _details(row: Mapping[str, Any]) -> str:
    image_id = text(row.get("image_id"))
    ranked = "".join(
        f'<li><span dir="auto">{text(other["caption"])}</span> <span class="number">{_number(other["log_prob"])}</span>'
        for other in row.get("captions") or []
        if other and other.get("log_prob") is not None
    )
    known = None not in (row.get("width"), row.get("height"))
    facts = {
        "Image": row.get("image_id"),
        "File": row.get("image_uri"),
        "Size": f"{row['width']} × {row['height']} pixels" if known else None,
        **{name: value for name, value in row.items() if name not in _OWN_COLUMNS},
    }
    listed = "".join(f'<dt>{text(name)}</dt><dd dir="auto">{text(value)}</dd>' for name, value in facts.items())
    best = f'<p class="label">All captions, with log probabilities</p><ol>{ranked}</ol>' if ranked else ""
    summary = f'<summary><span class="visually-hidden">Details of </span><span dir="auto">{image_id}</span></summary>'
    return f"<details>{summary}{best}<dl>{listed}</dl></details>"

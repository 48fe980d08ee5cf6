"""What can be asked of `pipelines.serve`."""

from __future__ import annotations

import dataclasses

from pipelines.settings.caption import Network
from pipelines.settings.search import Search
from pipelines.vision.images import MAX_PIXELS
from tfrecords_schema.command import Settings, group, setting

MOST_IMAGES_A_PASS = 128  # as many as are searched together; captioner.BATCH


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batching(Settings):
    """How images of several clients come together."""

    max_batch: int = setting("images in one forward pass and one search at most", 16, least=1, most=MOST_IMAGES_A_PASS)
    max_wait_ms: int = setting(
        "milliseconds that an image waits at most for others to share its forward pass", 5, least=0, most=10_000
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits(Settings):
    """What a request may cost; whatever is above is refused."""

    max_queue: int = setting(
        "images accepted and not yet captioned at most; requests above it are answered with 429",
        128,
        least=1,
        most=100_000,
    )
    max_images: int = setting("images in one request at most", 16, least=1, most=1000)
    max_request_mb: int = setting(
        "size of a request, and of an image fetched from a URL, in MB at most", 32, least=1, most=1024
    )
    max_pixels: int = setting("pixels of an image at most; larger ones are not decoded", MAX_PIXELS, least=1)
    max_beam_width: int = setting("beam width that a request may ask for at most", 20, least=1, most=1000)
    upload_s: float = setting(
        "seconds that a request, or an image from a URL, may take to arrive", 20.0, above=0, most=3600
    )
    timeout_s: float = setting("seconds from a request's arrival to its answer at most", 30.0, above=0, most=3600)
    drain_s: float = setting(
        "seconds to finish the requests that are there after SIGTERM or Ctrl-C", 20.0, least=0, most=3600
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServeConfig(Settings):
    """The whole of `python -m pipelines.serve`."""

    model: str = setting("model to serve: an export directory of trainer.task", metavar="DIR", reads="folder")
    host: str = setting(
        "address to listen on; 0.0.0.0 for all addresses of this machine",
        "127.0.0.1",
        heading="server",
        metavar="ADDRESS",
    )
    port: int | None = setting(
        "port to listen on; 0 for any free one",
        None,
        unset="the environment's AIP_HTTP_PORT or PORT, else 8080",
        least=0,
        most=65535,
    )
    allow_urls: bool = setting("let requests name images by http(s) URLs of public addresses", False)
    capitalise: bool = setting("begin each caption with a capital letter", False)
    batching: Batching = group(Batching, "batching")
    limits: Limits = group(Limits, "limits")
    network: Network = group(Network, "feature network")
    search: Search = group(Search, "search (what requests get unless they ask otherwise)")

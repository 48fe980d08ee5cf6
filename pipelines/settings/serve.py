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

    max_batch: int = setting("images in a forward pass and a search, at most", 16, least=1, most=MOST_IMAGES_A_PASS)
    max_wait_ms: int = setting("an image waits at most so long for others to share its pass", 5, least=0, most=10_000)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits(Settings):
    """What a request may cost; whatever is above is refused."""

    max_queue: int = setting(
        "images that are accepted and not yet captioned; above, answers 429", 128, least=1, most=100_000
    )
    max_images: int = setting("images of a request", 16, least=1, most=1000)
    max_request_mb: int = setting("of a request, or of an image by its URL, in MB", 32, least=1, most=1024)
    max_pixels: int = setting("of an image; larger ones are rejected from their header", MAX_PIXELS, least=1)
    max_beam_width: int = setting("that a request may ask for", 20, least=1, most=1000)
    upload_s: float = setting(
        "seconds that a request, or an image by its URL, may take to arrive", 20.0, above=0, most=3600
    )
    timeout_s: float = setting("seconds until it is answered, once it has arrived", 30.0, above=0, most=3600)
    drain_s: float = setting("seconds to finish what there is, after SIGTERM", 20.0, least=0, most=3600)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServeConfig(Settings):
    """The whole of `python -m pipelines.serve`."""

    model: str = setting("export directory of the trainer", metavar="DIR", reads="folder")
    host: str = setting("address to listen on; 0.0.0.0 for all of this machine", "127.0.0.1", metavar="ADDRESS")
    port: int | None = setting(
        "to listen on; 0: any (default: AIP_HTTP_PORT or PORT of the environment, else 8080)", None, least=0, most=65535
    )
    allow_urls: bool = setting("requests may name images by http(s) URLs of public addresses", False)
    capitalise: bool = setting("captions begin with a capital letter", False)
    batching: Batching = group(Batching, "shared forward passes")
    limits: Limits = group(Limits, "limits")
    network: Network = group(Network, "the network")
    search: Search = group(Search, "captions, unless a request asks otherwise")

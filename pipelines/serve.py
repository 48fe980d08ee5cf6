"""A captioning service: photos in by HTTP, captions out (`python -m pipelines.serve`)."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence

from pipelines import cli
from pipelines.settings.serve import ServeConfig
from tfrecords_schema import command, command_line, ending
from tfrecords_schema.errors import InputError
from tfrecords_schema.text import shortened

ABOUT = {
    "prog": "python -m pipelines.serve",
    "usage": "%(prog)s --model DIR [flags]",
    "description": "Serve captions over HTTP until Ctrl-C: POST images to /v1/captions, or try it on the page at /.",
    "epilog": "If the environment variable CAPTIONING_TOKEN is set, requests must have it as their bearer token.",
    "examples": """
        python -m pipelines.serve --model demo/train/export
        CAPTIONING_TOKEN=secret python -m pipelines.serve --port 8081 \\
          --model demo/train/export
    """,
}
_NEEDED = ("fastapi", "uvicorn", "prometheus_client", "python_multipart")
_PORT = 8080


def main(argv: Sequence[str] | None = None) -> None:
    """The command `caption-serve`."""
    with cli.command():
        ending.leave(run(command_line.parse(ServeConfig, argv, **ABOUT)))


def run(config: ServeConfig, environ: Mapping[str, str] = os.environ) -> int:
    """Serves until SIGTERM (exit status 0) or Ctrl-C (130).

    Raises:
      InputError: a flag, the environment or the model does not fit.
    """
    port = config.port if config.port is not None else _port(environ)
    missing = [name for name in _NEEDED if not importlib.util.find_spec(name)]
    if missing:
        way = "pip install 'batch-image-captioning[serve]'"
        raise InputError(f"expected the packages of the extra serve, found no {missing[0]}; {way}")
    from pipelines.serving import server
    from pipelines.serving.app import make_app
    from pipelines.serving.service import Service
    from tfrecords_schema.storage.filesystems import require_filesystems

    require_filesystems(**command.places(config))
    service = Service(config)
    app = make_app(service, environ.get("CAPTIONING_TOKEN", ""), environ)

    def load() -> None:
        service.load()
        print("ready", flush=True)

    with server.listen(config.host, port) as listener:
        host, port = listener.getsockname()[:2]
        print(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
        return server.serve(app, listener, load, service.close, config.limits.upload_s, config.limits.drain_s)


def _port(environ: Mapping[str, str]) -> int:
    """The port that Vertex AI or Cloud Run names, or our default."""
    for name in ("AIP_HTTP_PORT", "PORT"):
        if value := environ.get(name):
            if not (value.isdecimal() and int(value) <= 65535):
                raise InputError(f"{name}: expected a port in the environment, found {shortened(value)!r}")
            return int(value)
    return _PORT


if __name__ == "__main__":
    main()

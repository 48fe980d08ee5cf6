"""The page at `/`: one file with its style and its script in it, which may talk to this service and to nobody else."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources


def page() -> tuple[str, dict[str, str]]:
    """(The page, the headers that it comes with)."""
    texts = {kind: _text(f"page.{kind}") for kind in ("html", "css", "js")}
    made = texts["html"].replace("/*style*/", texts["css"]).replace("/*script*/", texts["js"])
    policy = {
        "default-src": "'none'",
        "style-src": _digest(texts["css"]),
        "script-src": _digest(texts["js"]),
        "img-src": "blob: data:",
        "connect-src": "'self'",
        **dict.fromkeys(("base-uri", "form-action", "frame-ancestors"), "'none'"),
    }
    told = "; ".join(" ".join(pair) for pair in policy.items())
    return made, {"Content-Security-Policy": told, "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"}


def _text(name: str) -> str:
    return importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

"""The Flex Templates' metadata, made from the commands' own flags: `make templates` writes them anew.

Their keys: https://cloud.google.com/dataflow/docs/guides/templates/configuring-flex-templates#metadata. A test
holds that the files are current.
"""

from __future__ import annotations

import json
import pathlib
from typing import Any

from pipelines.engines.gpu import GPUS
from pipelines.settings.caption import ON_SCREEN, CaptionConfig
from pipelines.settings.features import FeaturesConfig
from tfrecords_schema.command import Flag, Settings, flags
from tfrecords_schema.command_line import default_of
from tfrecords_schema.networks.registry import NETWORKS

HERE = pathlib.Path(__file__).parent
TEMPLATES: dict[str, tuple[type[Settings], str, str]] = {
    "features": (
        FeaturesConfig,
        "Image features and captions to TFRecords",
        "Extracts features of captioned images and writes sharded TFRecords.",
    ),
    "caption": (
        CaptionConfig,
        "Image captions to Parquet",
        "Captions images with beam search and writes a Parquet table.",
    ),
}
# Nobody waits for the job who could fail at its end; --gpu is easier; a launcher's job cannot be tried out, and has no
# screen.
LEFT_OUT = ("max_reject_fraction", "accelerator", "dry_run", "references")
NEEDED = ("output",)  # by a job, if not by the command

_BUCKET = "gs://[a-z0-9][a-z0-9_.-]{1,220}[a-z0-9]"
_PLACES = {"folder": f"{_BUCKET}(/[^,]*)?", "place": f"{_BUCKET}(/[^,]*)?", "file": f"{_BUCKET}/[^,]+"}
_SHARE = r"0(\.[0-9]+)?|1(\.0+)?"
# Texts of which not every value can mean something in the cloud.
_TEXTS = {
    "year": "[0-9]{4}",
    "split": "train|val|test",
    "weights": "imagenet|random",
    "extractor": f"{'|'.join(NETWORKS)}|saved_model:{_BUCKET}/[^,]+",
    "gpu": "|".join(GPUS),
}
_IMAGE = {
    "name": "sdk_container_image",
    "label": "Worker image",
    "helpText": "The image of Dockerfile.dataflow that this template's launcher was built upon.",
    "regexes": ["^[a-z0-9][a-z0-9.:-]*(/[a-z0-9][a-z0-9._-]*)+(:[A-Za-z0-9_.-]+|@sha256:[0-9a-f]{64})$"],
}


def template(name: str) -> str:
    """The text of `features.json` or `caption.json`."""
    config, title, description = TEMPLATES[name]
    parameters = [_parameter(flag) for flag in flags(config) if flag.name not in LEFT_OUT]
    content = {"name": title, "description": description, "parameters": [*parameters, _IMAGE]}
    return json.dumps(content, indent=2) + "\n"


def _parameter(flag: Flag) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": flag.name,
        "label": flag.name.replace("_", " ").capitalize(),
        "helpText": _help(flag),
    }
    if not flag.is_required and flag.name not in NEEDED:
        made["isOptional"] = True
    value = _value(flag)
    made["regexes"] = [f"^({value})(,({value}))*$" if flag.many else f"^({value})$"]
    if flag.is_switch:
        made["paramType"] = "BOOLEAN"
    elif "folder" in (flag.about.reads, flag.about.writes):
        made["paramType"] = "GCS_READ_FOLDER" if flag.about.reads else "GCS_WRITE_FOLDER"
    return made


def _help(flag: Flag) -> str:
    text = f"set to true to {flag.about.help}" if flag.is_switch else flag.about.help
    default = "true" if flag.default is True else default_of(flag)
    sentences = [
        f"{text[0].upper()}{text[1:]}.",
        "Separate several by commas." if flag.many else "",
        f"Default: {default}." if default not in ("", "none") else "",
    ]
    return " ".join(filter(None, sentences))


def _value(flag: Flag) -> str:
    """Regular expression of a value, or of one of several."""
    about = flag.about
    place = about.reads or about.writes
    if place:
        return _PLACES[place]
    if about.choices:
        return "|".join(choice for choice in about.choices if choice != ON_SCREEN)
    if flag.is_switch:
        return "true|false"
    if flag.type is int:
        return "[1-9][0-9]{0,9}" if about.least else "[0-9]{1,9}"
    if flag.type is float:
        return _SHARE if about.most == 1 else r"[0-9]+(\.[0-9]+)?"
    return _TEXTS.get(flag.name, "[^,]+")


if __name__ == "__main__":
    for name in TEMPLATES:
        (HERE / f"{name}.json").write_text(template(name))

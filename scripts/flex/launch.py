"""What a Flex Template's launcher runs: the command that $PIPELINE names, with its flags as the launcher writes them.

The launcher writes every parameter as `--name=value`, so that a switch comes as `--overwrite=true` and the values of a
flag that takes several are separated by commas. Nothing of ours but the installed package may be imported here, since
Dataflow's workers have no `scripts`.
"""

from __future__ import annotations

import os
import sys

from pipelines import caption, features
from pipelines.settings.caption import CaptionConfig
from pipelines.settings.features import FeaturesConfig
from tfrecords_schema.command import Settings, flags


def as_flags(config: type[Settings], parameters: list[str]) -> list[str]:
    """The parameters as the command reads them; Beam's own flags, and what cannot be made out, stay as they are."""
    known = {f"--{flag.name}": flag for flag in flags(config)}
    found = []
    for parameter in parameters:
        name, given, value = parameter.partition("=")
        flag = known.get(name)
        if given and not value:  # a field that was left empty
            continue
        if flag is None or not given:
            found.append(parameter)
        elif flag.is_switch and value.lower() == "true":
            found.append(name)
        elif flag.is_switch and value.lower() == "false":
            found += [] if flag.default is False else [name.replace("--", "--no-", 1)]
        elif flag.many:
            found += [name, *value.split(",")]
        else:
            found.append(parameter)
    return found


if __name__ == "__main__":
    command, config = {"features": (features, FeaturesConfig), "caption": (caption, CaptionConfig)}[
        os.environ["PIPELINE"]
    ]
    sys.argv[1:] = as_flags(config, sys.argv[1:])  # there, since Beam too looks for its flags in it
    command.main()

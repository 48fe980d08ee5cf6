"""What a Flex Template's launcher runs: the command that $PIPELINE names, with its flags as the launcher writes them.

The launcher writes every parameter as `--name=value`, so that a switch comes as `--overwrite=true` and the values of a
flag that takes several are separated by commas. Nothing of ours but the installed package may be imported here, since
Dataflow's workers have no `scripts`.
"""

from __future__ import annotations

import importlib
import os
import sys


def as_flags(parser, parameters: list[str]) -> list[str]:
    """The parameters as `parser` reads them; Beam's own flags, and what cannot be made out, stay as they are."""
    flags = []
    for parameter in parameters:
        name, given, value = parameter.partition("=")
        action = parser._option_string_actions.get(name)  # argparse has no public way to ask what a flag takes
        if given and not value:  # a field that was left empty
            continue
        if action is None or not given:
            flags.append(parameter)
        elif action.nargs == 0 and value.lower() == "true":
            flags.append(name)
        elif action.nargs == 0 and value.lower() == "false":
            flags += [option for option in action.option_strings if option == name.replace("--", "--no-", 1)]
        elif action.nargs == "+":
            flags += [name, *value.split(",")]
        else:
            flags.append(parameter)
    return flags


if __name__ == "__main__":
    command = importlib.import_module(f"pipelines.{os.environ['PIPELINE']}")
    sys.argv[1:] = as_flags(command.parser(), sys.argv[1:])  # there, since Beam too looks for its flags in it
    command.main()

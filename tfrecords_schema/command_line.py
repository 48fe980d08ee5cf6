"""The command line of a config: how it is read, and the page that --help prints."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Sequence
from typing import Any

from tfrecords_schema.command import REQUIRED, Config, Flag, Settings, flags, make, names
from tfrecords_schema.errors import ArgumentParser
from tfrecords_schema.text import shortened

_METAVARS = {int: "N", float: "X", str: "TEXT"}
_NOUNS = {int: "a whole number", float: "a number"}
_BEYOND_USE = 1_000_000  # a value may be as large as that, but nobody needs to be told


def parser(
    config: type[Settings], *, examples: str = "", description: str = "", epilog: str = "", **about: str
) -> ArgumentParser:
    """The command line of a config; `about` has argparse's `prog` and `usage`.

    Args:
      config: whose flags are taken.
      examples: whole commands, which the page ends with as they are.
      description: what the command does, at the page's top.
      epilog: what else there is to say, below the flags.
    """
    made = ArgumentParser(
        **about,
        description=_paragraph(description),
        epilog="\n\n".join(filter(None, [_paragraph(epilog), examples and f"examples:\n{_indented(examples)}"])),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    groups = {REQUIRED: made.add_argument_group(REQUIRED)}  # the first section; one without flags is not shown
    made.known = tuple(names(config))
    for flag in flags(config):
        if flag.title not in groups:
            groups[flag.title] = made.add_argument_group(flag.title)
        _add(groups[flag.title], flag)
    made.add_argument_group("help").add_argument("-h", "--help", action="help", help="print this page and exit")
    return made


def _paragraph(text: str) -> str:
    """The text as wide as argparse makes the rest of the page."""
    return textwrap.fill(text, max(shutil.get_terminal_size().columns - 2, 11))


def _indented(examples: str) -> str:
    return textwrap.indent(textwrap.dedent(examples).strip(), "  ")


def _add(group: Any, flag: Flag) -> None:
    """Only what is said is in the result: what is not, the dataclass knows."""
    about, name = flag.about, flag.name if flag.about.positional else f"--{flag.name}"
    more: dict[str, Any] = {"help": _described(flag).replace("%", "%%"), "default": argparse.SUPPRESS}
    if flag.is_switch:
        more["action"] = "store_true" if flag.default is False else argparse.BooleanOptionalAction
    else:
        more["type"] = _reader(flag)
        if not about.positional:
            more["required"] = flag.is_required
        one_of = f"{{{','.join(about.choices)}}}" if about.choices and not flag.many else ""
        more["metavar"] = about.metavar or one_of or _METAVARS[flag.type]
        if flag.many:
            more["nargs"] = "+"
        elif about.bare is not None:
            more |= {"nargs": "?", "const": about.bare}
    group.add_argument(name, **more)


def _described(flag: Flag) -> str:
    """A flag's help text with its choices, its range and its default."""
    about = flag.about
    has_most = about.most is not None and about.most < _BEYOND_USE
    notes = [f"any of {', '.join(about.choices)}"] if flag.many and about.choices else []
    if about.above is not None:
        notes.append(f"above {about.above:g}{f', at most {about.most:g}' if has_most else ''}")
    elif about.least is not None and has_most:
        notes.append(f"{about.least:g} to {about.most:g}")
    if default := default_of(flag):
        notes.append(f"default: {default}")
    return f"{about.help} ({'; '.join(notes)})" if notes else about.help


def default_of(flag: Flag) -> str:
    """What holds where the flag is not given; "" for a flag that must be, and for a switch that is off."""
    if flag.about.unset:
        return flag.about.unset
    if flag.is_required:
        return ""
    if flag.is_switch:
        return "on" if flag.default else ""
    if flag.default in (None, (), ""):
        return "none"
    return " ".join(flag.default) if flag.many else str(flag.default)


def _reader(flag: Flag) -> Any:
    """An argparse type: text -> value."""

    def read(text: str) -> Any:
        if flag.type is str:
            return text
        try:
            return flag.type(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected {_NOUNS[flag.type]}, found {shortened(text)!r}") from None

    return read


def given(config: type[Settings], argv: Sequence[str] | None = None, **about: str) -> tuple[dict[str, Any], list[str]]:
    """(the values that a command line gives, by flag; what is left of it: flags that are none of the config's).

    Where the command line does not fit, exits with status 2. `argv` is sys.argv's by default.
    """
    found, left = parser(config, **about).parse_known_args(argv)
    return vars(found), left


def parse_known(config: type[Config], argv: Sequence[str] | None = None, **about: str) -> tuple[Config, list[str]]:
    """A config from a command line, and what `given` leaves of it. Raises InputError where a value does not fit."""
    found, left = given(config, argv, **about)
    return make(config, found), left


def parse(config: type[Config], argv: Sequence[str] | None = None, **about: str) -> Config:
    """The same for a command that knows all of its flags."""
    return make(config, vars(parser(config, **about).parse_args(argv)))

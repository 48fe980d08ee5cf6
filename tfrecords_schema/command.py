"""A command is one frozen dataclass: its fields are its flags, and the checks of their values follow from them.

The command line and its help page follow from them too; see command_line.py.

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Running(Settings):
        batch_size: int = setting("images in a forward pass", 16, least=1)

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class FeaturesConfig(Settings):
        output: str = setting("directory to write", metavar="DIR")  # no default: a flag that must be given
        running: Running = group(Running, "running")  # its flags are --batch_size …, not --running.batch_size

tyro and simple-parsing do much of this. tyro 1.0 has no flag whose value may be left out (`--self_critical`), tells
mistakes in boxes, and calls a switch's opposite --no_NAME; simple-parsing 0.1.9 takes a value behind every switch, and
abbreviations; both pass `--no-forbid_unk` on as unknown, where Beam would get it. None knows ranges or templates.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from tfrecords_schema.errors import InputError
from tfrecords_schema.text import shortened

Config = TypeVar("Config", bound="Settings")

REQUIRED = "required"  # the section of flags that must be given

_LEAST, _MOST = -(1 << 31), (1 << 31) - 1  # of whole numbers: what TensorFlow and Arrow are given as int32


@dataclasses.dataclass(frozen=True)
class About:
    """What `setting` says of a flag.

    Attributes:
      help: a phrase that is clear by itself, begun in lower case; choices, range and default are added to it.
      unset: in words, what holds where the flag is not given, if its default does not say so.
      heading: over this flag and those that follow in its class, on the help page.
      least, most, above: a number is at least, at most, or more than this; a whole one fits into 32 bits anyway.
      choices: all values that there are.
      bare: what the flag means without a value; None: it must have one.
      metavar: stands for the value in the help text.
      reads, writes: "file", "folder" or "place" (files, folders or patterns) that the value names.
      positional: it is given by its place on the command line, without its name.
    """

    help: str
    unset: str = ""
    heading: str = ""
    least: float | None = None
    most: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()
    bare: Any = None
    metavar: str | None = None
    reads: str | None = None
    writes: str | None = None
    positional: bool = False


def setting(help: str, default: Any = dataclasses.MISSING, **about: Any) -> Any:
    """A field that is also a flag, with the attributes of About. False by default: a flag without a value."""
    return dataclasses.field(default=default, metadata={"about": About(help, **about)})


def group(settings: type[Config], title: str) -> Config:
    """A field that holds settings of their own, in a section of the help page."""
    return dataclasses.field(default_factory=settings, metadata={"title": title})


class Flag(NamedTuple):
    """One flag of a command.

    Attributes:
      name: without dashes, the field's.
      type: of a value, or of one of several: bool, int, float or str.
      many: whether it takes several values.
      default: dataclasses.MISSING for a flag that must be given.
      title: of the section of the help page that it stands in.
      way: from the command to its field, ("running", "batch_size").
    """

    name: str
    type: type
    many: bool
    default: Any
    about: About
    title: str
    way: tuple[str, ...]

    @property
    def is_required(self) -> bool:
        """Whether it must be given."""
        return self.default is dataclasses.MISSING

    @property
    def is_switch(self) -> bool:
        """Whether it takes no value: --name, and --no-name where it is not False by default."""
        return self.type is bool


class Settings:
    """What configs have in common: each field is checked when one is made.

    Raises:
      InputError: naming the flag, what was expected and what was found.
    """

    def __post_init__(self):
        for flag in flags(type(self)):
            if len(flag.way) == 1:
                _check(flag, getattr(self, flag.name))


def _check(flag: Flag, value: Any) -> None:
    about, is_whole = flag.about, flag.type is int
    is_folder = "folder" in (about.reads, about.writes)
    least = _LEAST if is_whole and about.least is None else about.least
    most = _MOST if is_whole and about.most is None else about.most
    for one in value if flag.many and value is not None else [] if value is None else [value]:
        for is_wrong, expected in (
            (one == "" and value != flag.default, "a directory" if is_folder else "a value"),
            (about.choices and one not in about.choices, f"one of {', '.join(about.choices)}"),
            (least is not None and not one >= least, f"at least {least}"),
            (about.above is not None and not one > about.above, f"more than {about.above}"),
            (most is not None and not one <= most, f"at most {most}"),
        ):
            if is_wrong:
                raise InputError(f"--{flag.name}: expected {expected}, found {shortened(one) or repr(one)}")


def flags(config: type[Settings], title: str = "options", way: tuple[str, ...] = ()) -> Iterator[Flag]:
    """All flags of a command, those of its groups where these stand."""
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):  # type: ignore[arg-type]  # every Settings is a dataclass
        if "title" in field.metadata:
            yield from flags(hints[field.name], field.metadata["title"], (*way, field.name))
        elif "about" in field.metadata:
            kind, many = _value_type(hints[field.name])
            about = field.metadata["about"]
            title = about.heading or title
            section = REQUIRED if field.default is dataclasses.MISSING else title
            yield Flag(field.name, kind, many, field.default, about, section, (*way, field.name))


def names(config: type[Settings]) -> list[str]:
    """The names of all flags, without dashes."""
    return [flag.name for flag in flags(config)]


def _value_type(hint: Any) -> tuple[type, bool]:
    """(type of a value, whether there are several) of `int`, `int | None` and `tuple[str, ...]`."""
    if isinstance(hint, types.UnionType):
        (hint,) = (one for one in typing.get_args(hint) if one is not types.NoneType)
    if typing.get_origin(hint) is tuple:
        return typing.get_args(hint)[0], True
    return hint, False


def make(config: type[Config], values: Mapping[str, Any] | None = None, /, **given: Any) -> Config:
    """A config from values by the names of its flags, whichever group they stand in, and of its other fields.

    Raises:
      InputError: a value does not fit.
      TypeError: there is no such flag, or one that must be given is missing.
    """
    left = {**(values or {}), **given}
    made = _make(config, left)
    if left:
        raise TypeError(f"{config.__name__} has no flag {next(iter(left))!r}")
    return made


def _make(config: type[Config], left: dict[str, Any]) -> Config:
    """The same, of those among `left` that the config has, which it takes out."""
    hints = typing.get_type_hints(config)
    found = {}
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        if "title" in field.metadata and field.name not in left:
            found[field.name] = _make(hints[field.name], left)
        elif field.name in left:
            value = left.pop(field.name)
            found[field.name] = tuple(value) if isinstance(value, list) else value
    return config(**found)


def values(config: Settings) -> dict[str, Any]:
    """The values of all flags, by name: what `make` takes."""
    found = {}
    for flag in flags(type(config)):
        value: Any = config
        for name in flag.way:
            value = getattr(value, name)
        found[flag.name] = value
    return found


def places(config: Settings) -> dict[str, Any]:
    """The values of those flags that name files and folders to be read or written."""
    named = {flag.name for flag in flags(type(config)) if flag.about.reads or flag.about.writes}
    return {name: value for name, value in values(config).items() if name in named}

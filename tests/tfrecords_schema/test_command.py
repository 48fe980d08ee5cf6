"""A command as a dataclass: what its flags are, what is taken, and how mistakes are told."""

from __future__ import annotations

import dataclasses

import pytest

from tfrecords_schema import command, command_line
from tfrecords_schema.command import Settings, group, setting
from tfrecords_schema.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Running(Settings):
    batch_size: int = setting("images at a time", 16, least=1)
    overwrite: bool = setting("delete what is there", False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Settings):
    output: str = setting("where to write", metavar="DIR", writes="folder")
    images: tuple[str, ...] = setting("what to read", (), reads="place")
    share: float | None = setting("90 % of it", None, least=0, most=1)
    temperature: float = setting("of drawing", 1.0, above=0)
    format: tuple[str, ...] = setting("of tables", ("csv",), choices=("csv", "json"))
    precision: str = setting("of a pass", "float32", choices=("float32", "float16"))
    repeat: int = setting("epochs; 10 without a number", 0, least=0, bare=10)
    forbid: bool = setting("never say it", True)
    running: Running = group(Running, "running")
    limit: int | None = setting("only so many", None, unset="all", heading="for trying out", least=1, most=9)
    derived: int = 7  # a field without `setting` is no flag


def parse(text: str) -> Config:
    return command_line.parse(Config, text.split())


def test_what_is_not_given_is_as_the_dataclass_says():
    assert parse("--output o") == Config(output="o", running=Running())
    assert parse("--output o").derived == 7


def test_flags_of_groups_have_no_prefix():
    config = parse("--output o --batch_size 4 --overwrite --images a b --share 0.5 --precision float16")
    assert config.running == Running(batch_size=4, overwrite=True)
    assert (config.images, config.share, config.precision) == (("a", "b"), 0.5, "float16")


@pytest.mark.parametrize(("flags", "repeat"), [("", 0), (" --repeat", 10), (" --repeat 3", 3), (" --repeat 0", 0)])
def test_a_flag_may_mean_something_without_a_value(flags, repeat):
    assert parse("--output o" + flags).repeat == repeat


@pytest.mark.parametrize(("flags", "forbid"), [("", True), (" --forbid", True), (" --no-forbid", False)])
def test_a_switch_that_is_on_can_be_switched_off(flags, forbid):
    assert parse("--output o" + flags).forbid is forbid


def test_flags_of_others_are_given_back():
    config, left = command_line.parse_known(Config, ["--output", "o", "--runner=Foo", "--batch", "3"])
    assert config.running.batch_size == 16 and left == ["--runner=Foo", "--batch", "3"]  # nothing is abbreviated


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--batch_size 0", "--batch_size: expected at least 1, found 0"),
        ("--share 1.5", "--share: expected at most 1, found 1.5"),
        ("--share nan", "--share: expected at least 0, found nan"),
        ("--temperature 0", "--temperature: expected more than 0, found 0.0"),
        ("--format csv xml", "--format: expected one of csv, json, found xml"),
        ("--precision float8", "--precision: expected one of float32, float16, found float8"),
    ],
)
def test_values_out_of_range_are_refused_where_the_config_is_made(flags, message):
    with pytest.raises(InputError) as error:
        parse(f"--output o {flags}")
    assert str(error.value) == message
    name, *values = flags.removeprefix("--").split()
    if name == "batch_size":  # by whoever makes one without a command line, too
        with pytest.raises(InputError, match=message):
            Running(batch_size=int(values[0]))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--output o --batch_size x", "error: --batch_size: expected a whole number, found 'x'; see "),
        ("--output o --batch_size 1.5", "error: --batch_size: expected a whole number, found '1.5'; see "),
        ("--output o --share x", "error: --share: expected a number, found 'x'; see "),
        ("--batch_size 1", "error: the following arguments are required: --output; see "),
        ("--output o --unknown", "error: unrecognized arguments: --unknown; see "),
        ("--output o --ouptut p", "error: unrecognized arguments: --ouptut p; did you mean --output? See "),
    ],
)
def test_mistakes_are_told_in_one_line(flags, message, capsys):
    with pytest.raises(SystemExit) as end:
        parse(flags)
    told = capsys.readouterr().err
    assert end.value.code == 2 and told.startswith(message) and told.count("\n") == 1


def test_make_takes_values_by_the_names_of_flags():
    config = command.make(Config, {"output": "o"}, batch_size=2, images=["a"], derived=8)
    assert config == Config(output="o", images=("a",), running=Running(batch_size=2), derived=8)
    assert command.make(Config, command.values(config), derived=8) == config
    with pytest.raises(TypeError, match="Config has no flag 'batchsize'"):
        command.make(Config, output="o", batchsize=2)
    with pytest.raises(TypeError, match="output"):
        command.make(Config, batch_size=2)


def test_places_are_what_is_read_and_written():
    assert command.places(command.make(Config, output="o", images=["a", "b"])) == {"output": "o", "images": ("a", "b")}


PAGE = """\
usage: try --output DIR

Tries it.

required:
  --output DIR          where to write

options:
  --images TEXT [TEXT ...]
                        what to read (default: none)
  --share X             90 % of it (0 to 1; default: none)
  --temperature X       of drawing (above 0; default: 1.0)
  --format TEXT [TEXT ...]
                        of tables (any of csv, json; default: csv)
  --precision {float32,float16}
                        of a pass (default: float32)
  --repeat [N]          epochs; 10 without a number (default: 0)
  --forbid, --no-forbid
                        never say it (default: on)

running:
  --batch_size N        images at a time (default: 16)
  --overwrite           delete what is there

for trying out:
  --limit N             only so many (1 to 9; default: all)

help:
  -h, --help            print this page and exit

That is all.

examples:
  try --output here \\
    --limit 1
"""


def test_help_is_a_page_of_sections_with_defaults(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    about = {"prog": "try", "usage": "%(prog)s --output DIR", "description": "Tries it.", "epilog": "That is all."}
    examples = """
        try --output here \\
          --limit 1
    """
    with pytest.raises(SystemExit) as end:
        command_line.parse(Config, ["--help"], **about, examples=examples)
    assert end.value.code == 0 and capsys.readouterr().out == PAGE

"""What a command prints of an error, whatever stands in its message."""

import pytest

from tfrecords_schema.errors import ArgumentParser, InputError, RunError, told_in_one_line


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (InputError("--a: café\nof\rtwo"), 2, r"--a: café\nof\rtwo"),
        (RunError("\x1b[31mred\x1b[0m\u202e"), 1, r"\x1b[31mred\x1b[0m\u202e"),
        (InputError("name \udcff \0"), 2, r"name \udcff \x00"),
        (InputError("--a: " + "x" * 5000 + "; give --b"), 2, "--a: " + "x" * 445 + " … " + "x" * 290 + "; give --b"),
    ],
)
def test_one_line_that_any_screen_can_show(capsys, error, status, told):
    with pytest.raises(SystemExit) as exit_, told_in_one_line():
        raise error
    assert exit_.value.code == status and capsys.readouterr().err == f"error: {told}\n"


def test_so_is_what_a_shell_made_of_a_pattern(capsys):
    with pytest.raises(SystemExit):
        ArgumentParser(prog="x").parse_args(["--a\x1b[2J\n.jpg"])
    assert capsys.readouterr().err == r"error: unrecognized arguments: --a\x1b[2J\n.jpg; see x --help" + "\n"

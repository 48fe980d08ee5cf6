"""What a training shows: captions that people gave, which may be anybody's."""

from trainer.training.screen import Screen


def test_captions_give_a_terminal_no_orders(capsys):
    Screen().say("people: \x1b[2J\x07 a dog\nepoch 9")
    assert capsys.readouterr().out == r"people: \x1b[2J\x07 a dog\nepoch 9" + "\n"

"""Scores against pycocoevalcap's own pipeline, against sums done by hand, and without Java."""

import math
import os
import shutil
import stat
import subprocess
import sys

import pytest

from tests.support import ROOT
from tests.support.scored import CAPTIONS, REFERENCES
from tfrecords_schema.errors import InputError
from trainer.scoring import java
from trainer.scoring.metrics import METRICS, Scorer

# Of no images that the figures in these tests are of.
ODD = {"1": ["...", "a ||| b |||c", "<a|||b>"], "2": ["?", ""]}

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="needs Java")


@pytest.fixture(scope="module")
def scorer():
    """METEOR takes seconds to start: one for all."""
    with Scorer({**REFERENCES, **ODD}) as scorer:
        yield scorer


@pytest.fixture
def fake_java(monkeypatch, tmp_path):
    """A function that puts a shell script in Java's place; `$REAL "$@"` in it runs Java."""

    def make(script):
        path = tmp_path / "bin/java"
        path.parent.mkdir()
        path.write_text(f"#!/bin/sh\nREAL={shutil.which('java')}\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")

    return make


@pytest.mark.slow
@needs_java
def test_scores_equal_pycocoevalcaps_own_pipeline(scorer):
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    tokenise = PTBTokenizer().tokenize
    references = tokenise({i: [{"caption": text} for text in texts] for i, texts in REFERENCES.items()})
    captions = tokenise({i: [{"caption": text}] for i, text in CAPTIONS.items()})
    bleu, bleu_each = Bleu(4).compute_score(references, captions, verbose=0)
    expected = {f"bleu_{n}": (bleu[n - 1], bleu_each[n - 1]) for n in (1, 2, 3, 4)}
    for name, metric in {"meteor": Meteor(), "rouge_l": Rouge(), "cider": Cider()}.items():
        expected[name] = metric.compute_score(references, captions)

    found = scorer(CAPTIONS)
    assert found.comparable and found.notes == ()
    assert list(found.corpus) == list(found.per_image) == list(METRICS) == list(expected)
    for name, (whole, each) in expected.items():
        assert found.corpus[name] == 100 * whole and whole > 0
        assert found.per_image[name] == {i: 100 * score for i, score in zip(CAPTIONS, each, strict=True)}


@needs_java
def test_calls_are_independent_and_meteor_starts_once(scorer):
    first = scorer(CAPTIONS)
    process = scorer._meteor._process.pid
    some = scorer({"285": "a bear", "139": ""})
    assert some.corpus["meteor"] > 0 and some.per_image["meteor"]["139"] == 0
    assert scorer(CAPTIONS) == first and scorer._meteor._process.pid == process


@needs_java
def test_a_caption_is_one_line_whatever_it_holds():
    breaks = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
    texts = [f"A dog{c}RUNS." for c in breaks] + ["", "...", "? !", "\ud800", " \n ", "the end"]
    assert java.stanford_tokens(texts) == ["a dog runs"] * len(breaks) + [""] * 5 + ["the end"]
    assert java.stanford_tokens([]) == []
    assert java.stanford_tokens(["Ünï \U0001f436 中文", "x"] * 30_000) == ["ünï 中文", "x"] * 30_000  # warns of each


@needs_java
@pytest.mark.slow
def test_the_users_locale_and_a_talkative_java_change_nothing(scorer, monkeypatch, fake_java):
    """METEOR reads 5.0 as the locale writes numbers; its stderr is a file that no one needs to read."""
    expected = scorer(CAPTIONS)
    fake_java('head -c 300000 /dev/zero >&2; exec $REAL "$@"')
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Dfile.encoding=US-ASCII -Duser.language=de -Duser.country=DE")
    with Scorer(REFERENCES) as other:
        assert other(CAPTIONS) == expected


@needs_java
def test_captions_of_no_words_and_separators(scorer):
    found = scorer({"1": "a ||| b <a|||b>", "2": "a dog", "139": "", "285": "..."})
    assert list(found.per_image["meteor"]) == ["1", "139", "285"]
    assert found.notes == ("1 of 4 images are left out: none of their references holds a word",)
    for each in found.per_image.values():
        assert each["1"] > each["139"] == pytest.approx(0, abs=1e-6) and each["285"] == each["139"]


@needs_java
def test_meteor_that_fails_leaves_the_rest(scorer, fake_java):
    expected = scorer(CAPTIONS)
    fake_java('case "$*" in *PTBTokenizer*) exec $REAL "$@";; esac; echo "Error: no\nspace for heap" >&2; exit 1')
    with Scorer(REFERENCES) as other:
        found = other(CAPTIONS)
    assert found.notes == ("METEOR is left out: java failed (exit status 1): Error: no space for heap",)
    assert found.comparable and found.corpus == {k: v for k, v in expected.corpus.items() if k != "meteor"}


@needs_java
@pytest.mark.slow
def test_an_interrupted_call_does_not_answer_the_next_one(monkeypatch):
    with Scorer({"1": ["a dog"], "2": ["a cat"]}) as other:
        expected = other({"1": "a dog", "2": "nothing"})
        with monkeypatch.context() as patch:
            patch.setattr(java.Meteor, "_answer", lambda self: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                other({"1": "nothing", "2": "nothing"})
        assert other({"1": "a dog", "2": "nothing"}) == expected


@needs_java
@pytest.mark.slow
def test_meteor_that_dies_between_calls_is_told_of():
    with Scorer({"1": ["a dog"]}) as other:
        assert other({"1": "a dog"}).corpus["meteor"] == 100
        other.close()
        other.close()
        assert other({"1": "a dog"}).corpus["meteor"] == 100
        other._meteor._process.kill()
        found = other({"1": "a dog"})
        assert "METEOR is left out: java failed" in found.notes[0] and "meteor" not in found.corpus
        assert other({"1": "a dog"}) == found


def test_java_that_fails_is_like_none(fake_java):
    fake_java("echo Error occurred during initialization of VM >&2; exit 1")
    found = Scorer(REFERENCES)(CAPTIONS)
    assert not found.comparable and "meteor" not in found.corpus
    assert "Error occurred during initialization of VM" in found.notes[0]


def test_java_that_fails_later_has_references_tokenised_anew(monkeypatch):
    """Words cut in two ways would not meet: "o'clock" is a word of ours, "it 's" are two of Stanford's."""

    def stanford_tokens(texts):
        if texts != ["it's five o'clock"]:
            raise java.JavaError("it broke")
        return ["it 's five o'clock"]

    monkeypatch.setattr(java, "stanford_tokens", stanford_tokens)
    scorer = Scorer({"1": ["it's five o'clock"]}, meteor=False)
    assert scorer.comparable
    found = scorer({"1": "It's five O'clock!"})
    assert found.corpus["bleu_3"] == pytest.approx(100) and not found.comparable and "it broke" in found.notes[0]


def test_without_java_the_notes_say_so(tmp_path):
    """In a process of its own that has no Java on its PATH."""
    code = (
        "from trainer.scoring.metrics import Scorer\n"
        "found = Scorer({'1': ['a dog runs'], '2': ['two cats']})({'1': 'a dog runs', '2': 'cats'})\n"
        "assert not found.comparable and list(found.corpus) == ['bleu_1', 'bleu_2', 'bleu_3', 'bleu_4', 'rouge_l', "
        "'cider']\n"
        "print(*found.notes, sep='|')"
    )
    env = {**os.environ, "PATH": str(tmp_path)}
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)
    assert found.returncode == 0 and found.stderr == ""
    assert found.stdout == (
        "NOT comparable with published figures: our own tokeniser takes the place of Stanford's, and METEOR is left "
        "out, because both need Java: found no `java` on the PATH; install one (Debian, Ubuntu: apt install "
        "default-jre-headless)\n"
    )


def test_bleu_by_hand(no_java):
    """Papineni et al. 2002, example 2, and the brevity penalty."""
    references = {"1": ["The cat is on the mat.", "There is a cat on the mat."], "2": ["the cat sat on the mat"]}
    found = Scorer(references)({"1": "the the the the the the the", "2": "the cat"})
    assert found.per_image["bleu_1"]["1"] == pytest.approx(100 * 2 / 7)
    assert found.per_image["bleu_1"]["2"] == pytest.approx(100 * math.exp(1 - 6 / 2))
    assert found.corpus["bleu_1"] == pytest.approx(100 * (2 + 2) / (7 + 2) * math.exp(1 - (7 + 6) / (7 + 2)))
    assert found.corpus["bleu_2"] == pytest.approx(100 * math.sqrt(4 / 9 * 1 / 7) * math.exp(1 - 13 / 9))


def test_cider_by_hand(no_java):
    """Word for word the only reference: 10 of 10; of two references one: half of it; of a single image: 0."""
    references = {"1": ["one two three four five"], "2": ["six seven eight nine", "ten eleven twelve thirteen"]}
    captions = {"1": "one two three four five", "2": "six seven eight nine"}
    found = Scorer(references)(captions)
    assert found.per_image["cider"] == pytest.approx({"1": 1000, "2": 500})
    assert found.corpus["cider"] == pytest.approx(750)
    alone = Scorer(references)({"1": captions["1"]})
    assert alone.corpus["cider"] == 0 and "CIDEr of a single image is 0" in alone.notes[-1]


def test_rouge_by_hand(no_java):
    """Lin 2004: "police the gunman" is in both, precision 3/4 and recall 3/5, and here beta is 1.2."""
    found = Scorer({"1": ["police killed the gunman now"]})({"1": "police kill the gunman"})
    assert found.corpus["rouge_l"] == pytest.approx(100 * (1 + 1.44) * 0.75 * 0.6 / (0.6 + 1.44 * 0.75))


@pytest.mark.parametrize(
    ("references", "captions", "message"),
    [
        ({}, {}, "expected images with captions, found none"),
        ({"1": []}, {}, "image 1: expected a list of captions"),
        ({"1": "a dog"}, {}, "image 1: expected a list of captions, found 'a dog'"),
        ({"1": ["a dog", None]}, {}, "image 1: expected a list of captions"),
        ({"1": ["a dog"]}, {}, "expected at least one, found none"),
        ({"1": ["a dog"]}, {"2": "a dog"}, "expected ids of images with references, found '2'"),
        ({"1": ["?"]}, {"1": "a dog"}, "expected captions with words, found none"),
    ],
)
def test_what_does_not_fit_is_refused(no_java, references, captions, message):
    with pytest.raises(InputError, match=message):
        Scorer(references)(captions)

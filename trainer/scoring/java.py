"""The two Java programs behind published figures, the Stanford tokeniser and METEOR, from pycocoevalcap's own jars.

pycocoevalcap's wrappers of the same jars write into site-packages, take a carriage return in a caption for the next
caption, leave METEOR's stderr pipe to fill up, and let it read numbers in the user's locale, where 5.0 may be none.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence

_SETTINGS = ("-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8", "-Duser.language=en", "-Duser.country=US")
_METEOR_MEMORY = "-Xmx2G"
_OWN_SESSION = True  # a terminal's Ctrl-C is for us to answer; Java ends when its input does
_SEPARATOR = "|||"  # of METEOR's fields


class JavaError(Exception):
    """Java is missing or failed; the message is a clause that says how, and what to do where that is known."""


def _java(*arguments: str) -> list[str]:
    path = shutil.which("java")
    if path is None:
        raise JavaError("found no `java` on the PATH; install one (Debian, Ubuntu: apt install default-jre-headless)")
    return [path, *_SETTINGS, *arguments]


def _failure(status: int | None, stderr: bytes) -> JavaError:
    lines = [line.strip() for line in stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    begins = next((n for n, line in enumerate(lines) if "error" in line.lower() or "exception" in line.lower()), 0)
    told = " ".join(lines[begins : begins + 2])[:200] or "without a word"
    return JavaError(f"java failed (exit status {status}): {told}")


def stanford_tokens(captions: Sequence[str]) -> list[str]:
    """Captions -> lower-case Penn Treebank tokens with single spaces between, punctuation dropped.

    What `pycocoevalcap`'s PTBTokenizer gives, but that a caption is one line whatever characters it holds.

    Raises:
      JavaError: Java is missing or failed.
    """
    from pycocoevalcap.tokenizer import ptbtokenizer

    jar = os.path.join(os.path.dirname(ptbtokenizer.__file__), ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR)
    command = _java("-cp", jar, "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase")
    # str.split knows every character that the tokeniser takes for the end of a line (U+2028, carriage return, ...).
    lines = "".join(" ".join(caption.split()) + "\n" for caption in captions)
    try:
        done = subprocess.run(
            command, input=lines.encode("utf-8", "replace"), capture_output=True, start_new_session=_OWN_SESSION
        )
    except OSError as error:
        raise JavaError(f"java cannot be run: {error}") from None
    if done.returncode:
        raise _failure(done.returncode, done.stderr)
    found = done.stdout.decode("utf-8", "replace").split("\n")[:-1]
    if len(found) != len(captions):
        raise JavaError(f"the tokeniser gave {len(found)} lines back for {len(captions)} captions")
    dropped = frozenset(ptbtokenizer.PUNCTUATIONS)
    return [" ".join(word for word in line.rstrip().split(" ") if word not in dropped) for line in found]


class Meteor:
    """METEOR 1.5 (Denkowski and Lavie 2014, https://www.cs.cmu.edu/~alavie/METEOR/) in a process of its own.

    It takes seconds to start and up to 2 GB, and is quick then: use one for many calls, and close it.
    """

    def __init__(self):
        """Raises JavaError where there is no Java."""
        from pycocoevalcap.meteor import meteor

        jar = os.path.join(os.path.dirname(meteor.__file__), meteor.METEOR_JAR)
        command = _java(_METEOR_MEMORY, "-jar", jar, "-", "-", "-stdio", "-l", "en", "-norm")
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - a pipe that nobody reads would fill up and stop it
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                encoding="utf-8",
                start_new_session=_OWN_SESSION,
            )
        except OSError as error:
            self._stderr.close()
            raise JavaError(f"java cannot be run: {error}") from None

    def __call__(self, captions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
        """Tokenised captions, and the tokenised references of each -> (of all together, of each), from 0 to 1.

        Raises:
          JavaError: the process has ended or answers nonsense. After this or any other exception it is closed, since
            answers to what was asked before would be taken for later ones.
        """
        try:
            scored = [self._score(caption, given) for caption, given in zip(captions, references, strict=True)]
            self._say(_fields("EVAL", *scored))
            each = [float(self._answer()) for _ in captions]
            return float(self._answer()), each
        except (OSError, ValueError):
            with contextlib.suppress(subprocess.TimeoutExpired):  # it ended, and has something to say of it
                self._process.wait(timeout=5)
            self._stderr.seek(0)
            failure = _failure(self._process.poll(), self._stderr.read())
            self.close()
            raise failure from None
        except BaseException:
            self.close()
            raise

    def _score(self, caption: str, references: Sequence[str]) -> str:
        """The statistics of one caption, as METEOR writes them."""
        texts = (text.replace(_SEPARATOR, " ") for text in (*references, caption))
        self._say(_fields("SCORE", *texts))
        return self._answer()

    def _say(self, line: str) -> None:
        assert self._process.stdin  # a pipe, as is stdout
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _answer(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline().strip()
        if not line or line.startswith("Error"):
            raise ValueError(line)
        return line

    def close(self) -> None:
        """Ends the process; again does nothing."""
        self._process.kill()
        self._process.wait()
        for handle in (self._process.stdin, self._process.stdout, self._stderr):
            with contextlib.suppress(OSError):  # what was not yet written is of no use to anybody
                if handle:
                    handle.close()


def _fields(*fields: str) -> str:
    return f" {_SEPARATOR} ".join(fields)

"""Changes of tables that are text: cells, columns and quotes of CSV, lines of `word count` and of vectors."""

from __future__ import annotations

import csv
import io
import pathlib
import random

from tests.fuzz import odd


def mutate_csv(path: pathlib.Path, rng: random.Random, place: str) -> str:
    """Changes a cell, a row or a column of a CSV file, or how it is written."""
    rows = list(csv.reader(io.StringIO(path.read_text(), newline="")))
    row, column = rng.randrange(len(rows)), rng.randrange(len(rows[0]))
    how = {"delimiter": ",", "lineterminator": "\n"}
    kind = rng.choice(["cell", "cell", "longer", "shorter", "row", "column", "header", "delimiter", "end", "quote"])
    if kind == "cell":
        rows[row][column] = odd.text(rng, place)
    elif kind == "longer":
        rows[row] += rng.choice([[odd.text(rng, place)], ["x"] * 5000])
    elif kind == "shorter":
        del rows[row][column]
    elif kind == "row":
        rows[row:row] = rng.choice([[rows[row]], [[]], [rows[0]], [[""] * len(rows[0])], []])
    elif kind == "column":
        rows = [[*cells[:column], *cells[column + 1 :]] for cells in rows]
    elif kind == "header":
        rows[0][column] = rng.choice([rows[0][0], "image", "id", "split", odd.text(rng, place)])
    elif kind == "delimiter":
        how["delimiter"] = rng.choice([";", "\t", "|"])
    elif kind == "end":
        how["lineterminator"] = rng.choice(["\r\n", "\r", "\n\n"])
    text = io.StringIO()
    csv.writer(text, **how).writerows(rows)
    written = text.getvalue()
    if kind == "quote":
        at = rng.randrange(len(written) + 1)
        written = written[:at] + rng.choice(['"', '""', ',"', '"\n']) + written[at:]
    path.write_text(written, errors="surrogatepass", newline="")
    return f"{kind} at row {row}, column {column}"


def mutate_lines(path: pathlib.Path, rng: random.Random, place: str) -> str:
    """Changes a word of a line, or lines as such."""
    lines = path.read_text().splitlines()
    row = rng.randrange(len(lines))
    words = lines[row].split(" ")
    column = rng.randrange(len(words))
    kind = rng.choice(["word", "number", "longer", "shorter", "doubled", "deleted", "swapped", "end"])
    if kind == "word":
        words[column] = odd.text(rng, place)
    elif kind == "number":
        words[-1] = str(odd.number(rng)) if rng.random() < 0.8 else rng.choice(odd.RAW[:4])
    elif kind == "longer":
        words += ["0.5"] * rng.choice([1, 1, 100_000])
    elif kind == "shorter":
        del words[column]
    lines[row] = " ".join(words)
    if kind == "doubled":
        lines.insert(rng.randrange(len(lines)), lines[row])
    elif kind == "deleted":
        del lines[row]
    elif kind == "swapped":
        other = rng.randrange(len(lines))
        lines[row], lines[other] = lines[other], lines[row]
    end = rng.choice(["\r\n", "\r", "\u2028", "\x0c"]) if kind == "end" else "\n"
    path.write_text(end.join([*lines, ""]), errors="surrogatepass", newline="")
    return f"{kind} in line {row}"

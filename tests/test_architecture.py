"""The rules of the layout: which room may import which, that nothing goes round in circles, and that help is quick."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

from tests.support import ROOT
from tests.support.every_command import COMMANDS

# From the bottom up: a room may import the rooms of earlier lines, and of its own line only itself.
LEVELS = {
    "tfrecords_schema": [
        ("manifests",),
        ("networks",),
        ("storage",),
        ("show",),
    ],  # above the modules that are in no room
    "pipelines": [
        ("items", "clock"),
        ("storage",),
        ("listing",),
        ("sources", "vision"),
        ("settings",),
        ("output",),
        ("captions", "training_records"),
        ("engines", "pictures", "downloads", "serving"),
        ("cli",),
        ("features", "caption", "gallery", "download_coco", "serve"),
    ],
    "trainer": [
        ("config",),
        ("model",),
        ("data",),
        ("search",),
        ("scoring",),
        ("training",),
        ("im2txt",),
        ("exporting",),
        ("vertex",),
        ("task", "evaluate", "export", "import_im2txt"),
        ("submit",),
    ],
}
FORBIDDEN = {
    "tfrecords_schema": {"pipelines", "trainer", "apache_beam", "scripts", "tests"},
    "trainer": {"pipelines", "apache_beam", "scripts", "tests"},
    "pipelines": {"trainer", "scripts", "tests"},
}
MOST_LINES, MOST_MODULES = 260, 15


def modules(package: str) -> dict[str, pathlib.Path]:
    """Every module of a package by its dotted name; a folder's `__init__` has the folder's."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


OURS = {name: path for package in LEVELS for name, path in modules(package).items()}


def imports(path: pathlib.Path) -> set[str]:
    """The dotted names of all that a file imports, wherever in it; of `from a import b` a.b."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level and node.module, f"{path}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def our_imports(name: str) -> set[str]:
    """Those of the modules that a module imports which are ours."""
    found = imports(OURS[name])
    return {one for full in found for one in (full, full.rpartition(".")[0]) if one in OURS and "." in one} - {name}


def level_of(name: str) -> tuple[int, str]:
    """(how far up a module's room is, its room)."""
    package, room, *_ = name.split(".")
    found = [number for number, rooms in enumerate(LEVELS[package]) if room in rooms]
    if package == "tfrecords_schema" and not found:
        return -1, ""
    (level,) = found
    return level, room


@pytest.mark.parametrize("package", FORBIDDEN)
def test_packages_keep_to_themselves(package):
    found = {name: {full.split(".")[0] for full in imports(path)} for name, path in modules(package).items()}
    broken = {name: sorted(tops & FORBIDDEN[package]) for name, tops in found.items()}
    assert found and not {name: tops for name, tops in broken.items() if tops}


@pytest.mark.parametrize("package", LEVELS)
def test_each_room_imports_only_those_below_it(package):
    broken = []
    for name in modules(package):
        if "." not in name:
            continue
        level, room = level_of(name)
        for other in our_imports(name):
            if other.startswith(f"{package}.") and level_of(other)[1] != room and level_of(other)[0] >= level:
                broken.append(f"{name} imports {other}")
    assert not broken


def test_the_docs_name_every_room_in_this_order_and_what_it_may_import():
    rows = re.findall(r"^\| (&emsp;)?(`.+?) \| (.+?) \| (.*?) ?\|$", (ROOT / "docs/architecture.md").read_text(), re.M)
    start = next(at for at, row in enumerate(rows) if row[1] == "`tfrecords_schema/`")
    named: dict[str, list] = {}
    for indent, names, what, may_import in rows[start:]:
        if not indent:
            package = names.strip("`/")
            named[package] = []
        else:
            named[package].append(tuple(re.findall(r"`(\w+)(?:/|\.py)`", names)))
        assert what and may_import
    assert named == LEVELS


def test_no_module_imports_itself_in_a_circle():
    seen: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join([*way[way.index(name) :], name])
        if name not in seen:
            for other in sorted(our_imports(name)):
                visit(other, (*way, name))
            seen.add(name)

    for name in OURS:
        visit(name, ())


def test_no_test_module_imports_another():
    """What tests share is in tests/support and in conftest.py."""
    found = {str(path.relative_to(ROOT)): imports(path) for path in sorted((ROOT / "tests").rglob("*.py"))}
    shared = re.compile(r"tests\..*\b(test_\w+|conftest)\b")
    assert not {path: names for path, full in found.items() if (names := sorted(filter(shared.match, full)))}


def test_folders_and_modules_are_of_a_size_to_read():
    sizes = {name: len(path.read_text().splitlines()) for name, path in OURS.items()}
    assert not {name: lines for name, lines in sizes.items() if lines > MOST_LINES}
    folders = {path.parent for path in OURS.values()}
    counts = {str(folder.relative_to(ROOT)): len([*folder.glob("[!_]*.py")]) for folder in folders}
    assert not {folder: count for folder, count in counts.items() if count > MOST_MODULES}


@pytest.mark.parametrize("module", COMMANDS)
def test_help_imports_neither_tensorflow_nor_beam(module):
    """What makes --help quick, without timing it."""
    code = (
        f"import sys, {module} as m\n"
        "try: m.main(['--help'])\n"
        "except SystemExit as e: assert e.code == 0\n"
        "heavy = {'tensorflow', 'apache_beam', 'keras', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "usage:" in found.stdout

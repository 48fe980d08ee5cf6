"""The rules of the layout: who may import whom, and that help is quick."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FORBIDDEN = {
    "tfrecords_schema": {"pipelines", "trainer", "apache_beam", "scripts", "tests"},
    "trainer": {"pipelines", "apache_beam", "scripts", "tests"},
    "pipelines": {"trainer", "scripts", "tests"},
}


def imports(path: pathlib.Path) -> set[str]:
    """Top-level names of every import in a file, wherever it stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", FORBIDDEN)
def test_import_rule(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    broken = {str(f.relative_to(ROOT)): sorted(imports(f) & FORBIDDEN[package]) for f in files}
    assert not {name: names for name, names in broken.items() if names}


COMMANDS = [
    "pipelines.features",
    "pipelines.caption",
    "pipelines.gallery",
    "trainer.task",
    "trainer.evaluate",
    "trainer.submit",
    "tfrecords_schema.show",
]


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


def test_modules_are_of_a_size_to_read():
    sizes = {p: len(p.read_text().splitlines()) for package in FORBIDDEN for p in (ROOT / package).rglob("*.py")}
    assert not {str(p): n for p, n in sizes.items() if n > 260}

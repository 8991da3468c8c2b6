"""The import graph is a diamond over data, and no module or function outgrows a reader."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("data", "extract", "probes")
MODULES = [*sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")), ROOT / "pipeline.py"]
FORBIDDEN = {
    "data": {"torch", "transformers", "extract", "probes", "pipeline"},
    "extract": {"probes", "pipeline"},
    "probes": {"extract", "pipeline", "transformers"},
}


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path) -> Iterator[str]:
    """The top name of everything a module imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0] if not node.level else path.parent.name


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_every_package_has_modules_to_look_at():
    for package in PACKAGES:
        assert sum(path.parent.name == package for path in MODULES) > 3


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_nothing_from_across_its_border(package):
    for path in (ROOT / package).rglob("*.py"):
        assert not set(imports(path)) & FORBIDDEN[package], named(path)


def test_only_the_shard_module_reads_or_writes_hdf5():
    users = {named(path) for path in MODULES if "h5py" in imports(path)}
    assert "data/shard.py" in users
    for path in users - {"data/shard.py"}:
        tree = ast.parse((ROOT / path).read_text())
        taken = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "h5py"
        }
        assert taken == {"__version__"}, f"{path} may ask h5py for its version only"


def test_nothing_unpickles():
    for path in MODULES:
        assert not set(imports(path)) & {"pickle", "dill", "joblib", "shelve", "marshal"}, named(path)


@pytest.mark.parametrize(
    ("module", "absent"),
    [("pipeline", {"torch", "transformers", "datasets"}), ("probes.experiment", {"transformers", "extract"})],
)
def test_importing_is_cheap_and_leaves_out_what_it_does_not_need(module, absent):
    code = f"import sys, {module}; print(*sorted(set(sys.modules) & {absent!r}))"
    found = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True, timeout=120)
    assert found.split() == []


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_no_module_is_longer_than_500_lines(path):
    assert len(path.read_text().splitlines()) <= 500


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_no_function_is_longer_than_60_lines(path):
    long = {node.name: node.end_lineno - node.lineno + 1 for node in functions(path)}
    assert not {name: lines for name, lines in long.items() if lines > 60}


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_every_module_says_what_it_is_for(path):
    assert ast.get_docstring(ast.parse(path.read_text()))

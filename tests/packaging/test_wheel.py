"""The wheel: built from a clean copy, it holds one package, and runs beside folders that are called as ours are."""

import os
import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("permafrost", "data", "extract", "probes", "pyproject.toml", "README.md", "LICENSE")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sources() -> list[Path]:
    """The files that a wheel is built from, relative to the root: those that git tracks, or all where git is not."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        listed = subprocess.check_output(["git", "ls-files", "-z", "--", *SOURCES], cwd=ROOT, text=True)
        paths = [ROOT / name for name in listed.split("\0") if name]
    else:
        paths = [path for name in SOURCES for path in (ROOT / name, *(ROOT / name).rglob("*"))]
    return [
        path.relative_to(ROOT)
        for path in paths
        if path.is_file() and not path.is_symlink()
        if path.suffix != ".pyc" and "egg-info" not in str(path.relative_to(ROOT))
    ]


@pytest.fixture(scope="module")
def wheel(sources, tmp_path_factory):
    copy, built = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    for path in sources:
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, copy / path)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", built, copy]
    subprocess.run(command, check=True, timeout=600)
    (path,) = built.glob("*.whl")
    return path


def test_it_holds_one_package_with_all_that_ships(wheel, sources):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"permafrost", f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"}
    packaged = [path for path in sources if len(path.parts) > 1 and path.suffix != ".typed"]
    assert {path.parts[0] for path in packaged} == {"data", "extract", "probes", "permafrost"}
    for path in packaged:
        inside = path if path.parts[0] == "permafrost" else Path("permafrost") / path
        assert inside.as_posix() in names


def test_the_quickstart_runs_from_it_beside_folders_of_the_same_names(wheel, tmp_path):
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True, timeout=300)
    python = environment / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", wheel], check=True, timeout=300)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(site.getsitepackages()[0])  # only what is below it, no editable install
    work = tmp_path / "work"
    for name in ("data", "extract", "probes"):
        (work / name).mkdir(parents=True)
        (work / name / "__init__.py").write_text("raise RuntimeError('this is not permafrost')")
    (work / "pipeline.py").write_text("raise RuntimeError('this is not permafrost')")
    free = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    said = subprocess.check_output(
        [environment / "bin" / "permafrost", "run", "quickstart"], cwd=work, env=free, text=True, timeout=300
    )
    assert "run: runs/quickstart-1" in said
    code = "import permafrost as pf; print(pf.__file__, pf.load('runs/quickstart-1').predict([('a', 'a')]))"
    printed = subprocess.check_output([python, "-c", code], cwd=work, env=free, text=True, timeout=300)
    assert str(environment) in printed
    assert "score" in printed

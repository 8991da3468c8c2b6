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
def wheel(tmp_path_factory):
    copy, built = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in SOURCES:
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, copy / name)
        else:
            shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=unwanted)
    for link in ("data", "extract", "probes"):  # which make install leaves for mypy
        (copy / "permafrost" / link).unlink(missing_ok=True)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", built, copy]
    subprocess.run(command, check=True, timeout=600)
    (found,) = built.glob("*.whl")
    return found


def test_it_holds_one_package_with_all_that_ships(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"permafrost", f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"}
    for top in ("data", "extract", "probes", "permafrost"):
        for path in (ROOT / top).rglob("*"):
            if (
                path.is_file()
                and not path.is_symlink()
                and path.suffix not in (".pyc", ".typed")
                and "egg-info" not in str(path)
            ):
                relative = path.relative_to(ROOT)
                inside = relative if relative.parts[0] == "permafrost" else Path("permafrost") / relative
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

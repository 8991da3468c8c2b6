"""The layering of the house, and limits that keep every file readable."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).resolve().parent.parent

MAY_IMPORT: dict[str, set[str]] = {
    "data": set(),
    "data.corpora": {"data", "data.writing"},
    "data.device": set(),
    "data.language": {"data"},
    "data.store": {"data", "data.code", "data.plan", "data.remote", "data.store.index"},
    "data.readers": {"data", "data.corpora", "data.files", "data.writing"},
    "extract.architecture": {"data", "data.settings"},
    "extract.attention": {"data", "data.device"},
    "extract.backbones": {
        "data",
        "data.device",
        "data.language",
        "data.plan",
        "data.remote",
        "data.settings",
        "data.store",
        "extract.architecture",
    },
    "extract.tokenization": {
        "data",
        "data.plan",
        "data.remote",
        "data.store",
        "data.writing",
        "extract.architecture",
        "extract.backbones",
    },
    "extract.capture": {
        "data",
        "data.device",
        "data.plan",
        "data.store",
        "extract.architecture",
        "extract.attention",
        "extract.backbones",
        "extract.tokenization",
    },
    "extract.finetuning": {
        "data",
        "data.device",
        "data.plan",
        "data.remote",
        "extract.architecture",
        "extract.attention",
        "extract.backbones",
        "extract.capture",
        "extract.proofs",
    },
    "extract.pretraining": {
        "data",
        "data.corpora",
        "data.language",
        "data.plan",
        "extract.architecture",
        "extract.backbones",
    },
    "extract": {
        "data",
        "data.device",
        "data.latents",
        "data.plan",
        "data.remote",
        "data.store",
        "data.store.index",
        "extract.architecture",
        "extract.backbones",
        "extract.capture",
        "extract.distributed",
        "extract.proofs",
        "extract.tokenization",
    },
    "probes.config": {"data", "data.corpora", "data.language", "data.plan", "data.remote", "data.settings"},
    "probes.metrics": {"data.corpora", "data.writing"},
    "probes.results": {
        "data",
        "data.code",
        "data.corpora",
        "data.settings",
        "data.writing",
        "probes.config",
        "probes.metrics",
    },
    "probes.models": {"data", "data.device", "probes.config"},
    "probes.balancing": {"data", "probes.config"},
    "probes.search": {"data", "probes.config", "probes.results"},
    "probes.inputs": {
        "data",
        "data.corpora",
        "data.device",
        "data.latents",
        "data.plan",
        "data.remote",
        "data.scratch",
        "data.store",
        "probes.config",
        "probes.models",
    },
    "probes.figures": {"probes.config", "probes.metrics", "probes.results"},
    "probes.training": {
        "data",
        "data.corpora",
        "data.device",
        "probes.balancing",
        "probes.config",
        "probes.inputs",
        "probes.models",
        "probes.results",
    },
    "probes.tasks": {"data", "data.corpora", "data.writing", "probes.config", "probes.metrics", "probes.results"},
    "probes.objectives": {
        "data",
        "data.corpora",
        "data.device",
        "data.plan",
        "data.store",
        "probes.config",
        "probes.inputs",
        "probes.models",
        "probes.tasks",
    },
    "probes.reports": {
        "data",
        "data.corpora",
        "probes.config",
        "probes.figures",
        "probes.metrics",
        "probes.results",
        "probes.tasks",
    },
    "probes.runs": {
        "data",
        "data.plan",
        "data.settings",
        "data.store",
        "probes.config",
        "probes.inputs",
        "probes.metrics",
        "probes.models",
        "probes.objectives",
        "probes.reports",
        "probes.results",
        "probes.tasks",
    },
    "probes.variants": {
        "data",
        "data.corpora",
        "data.device",
        "data.plan",
        "data.readers",
        "data.remote",
        "data.store",
        "probes.balancing",
        "probes.config",
        "probes.inputs",
        "probes.metrics",
        "probes.models",
        "probes.objectives",
        "probes.results",
        "probes.search",
        "probes.tasks",
        "probes.training",
    },
    "probes.prediction": {
        "data",
        "data.corpora",
        "data.device",
        "data.files",
        "data.plan",
        "data.readers",
        "data.store",
        "probes.config",
        "probes.inputs",
        "probes.models",
        "probes.objectives",
        "probes.tasks",
    },
    "probes.experiments": {
        "data",
        "data.corpora",
        "data.language",
        "data.plan",
        "data.store",
        "data.streams",
        "probes.balancing",
        "probes.config",
        "probes.inputs",
        "probes.metrics",
        "probes.models",
        "probes.objectives",
        "probes.results",
        "probes.runs",
        "probes.search",
        "probes.tasks",
        "probes.tracking",
        "probes.training",
        "probes.variants",
    },
    "permafrost": {
        "data",
        "data.corpora",
        "data.export",
        "data.files",
        "data.latents",
        "data.plan",
        "data.readers",
        "data.remote",
        "data.store",
        "data.streams",
        "extract",
        "extract.architecture",
        "extract.backbones",
        "extract.distributed",
        "extract.finetuning",
        "extract.pretraining",
        "extract.tokenization",
        "permafrost.display",
        "probes.config",
        "probes.evaluation",
        "probes.experiments",
        "probes.inputs",
        "probes.objectives",
        "probes.prediction",
        "probes.reports",
        "probes.results",
        "probes.runs",
        "probes.search",
        "probes.tracking",
        "probes.variants",
    },
    "permafrost.cli": {
        "data",
        "data.corpora",
        "data.latents",
        "data.readers",
        "data.remote",
        "data.settings",
        "data.store",
        "extract.backbones",
        "extract.distributed",
        "permafrost",
        "permafrost.batches",
        "permafrost.display",
        "permafrost.scaling",
        "probes.config",
        "probes.prediction",
        "probes.reports",
        "probes.results",
        "probes.search",
    },
    "data.files": {"data", "data.writing"},
    "data.writing": set(),
    "data.latents": {"data", "data.plan", "data.remote", "data.store", "data.store.index"},
    "data.export": {"data", "data.corpora", "data.plan", "data.store"},
    "probes.evaluation": {
        "data",
        "data.corpora",
        "data.plan",
        "data.readers",
        "data.store",
        "probes.config",
        "probes.inputs",
        "probes.metrics",
        "probes.objectives",
        "probes.results",
        "probes.runs",
        "probes.tasks",
        "probes.variants",
    },
    "permafrost.batches": {
        "data",
        "data.settings",
        "extract",
        "permafrost",
        "permafrost.display",
        "probes.config",
        "probes.reports",
        "probes.results",
        "probes.search",
        "probes.tracking",
        "probes.variants",
    },
    "permafrost.display": {"data", "probes.reports", "probes.results"},
    "probes.tracking": {"data", "probes.config", "probes.results"},
    "data.code": set(),
    "data.store.index": set(),
    "data.streams": {"data", "data.corpora", "data.files", "data.language", "data.readers"},
    "data.scratch": {"data", "data.store", "data.store.index"},
    "data.remote": {"data", "data.store.index"},
    "data.plan": {"data"},
    "extract.distributed": {
        "data",
        "data.plan",
        "data.store",
        "data.store.index",
        "extract.capture",
        "extract.tokenization",
    },
    "permafrost.scaling": {
        "data",
        "data.corpora",
        "data.latents",
        "data.plan",
        "data.remote",
        "data.store",
        "data.streams",
        "extract",
        "extract.backbones",
        "extract.capture",
        "extract.distributed",
        "extract.tokenization",
        "permafrost",
        "probes.config",
        "probes.search",
        "probes.variants",
    },
    "data.settings": {"data"},
    "extract.proofs": {
        "data",
        "data.plan",
        "data.remote",
        "data.store",
        "extract.architecture",
        "extract.attention",
        "extract.backbones",
        "extract.capture",
        "extract.tokenization",
    },
}
"""Sub-package -> what it may import; ``permafrost`` is the roof. An entry that nothing uses fails too."""

NO_TORCH = {
    "data", "data.corpora", "data.export", "data.language", "data.latents", "data.store", "data.readers",
    "data.writing", "probes.config", "probes.results", "probes.metrics", "probes.search", "probes.figures",
    "probes.reports", "probes.tasks", "probes.tracking", "extract.tokenization", "extract.backbones.tokenizer",
    "extract.distributed", "permafrost.scaling",
    "extract.finetuning.proven_cut", "extract.shard_writer", "extract.text_latents", "permafrost.stage_one",
    "probes.variants.latent_workspace", "permafrost.batches", "permafrost.named_runs",
}  # fmt: skip
"""Sub-packages, and modules of others, that work where torch is absent; with them, all that a warm start needs."""

TRACKERS = {"tensorboard", "mlflow", "wandb", "optuna_dashboard"}
"""Packages that nothing loads before a recipe or a command asks for them."""

DRAWN = {"scipy", "sklearn", "seqeval", "matplotlib", "plotly", "jinja2", "transformers"} | TRACKERS
"""Packages that a training begins without: they measure, draw or show what was trained, or load a backbone."""

ONLY_IN = {
    "h5py": {"data.store.block", "data.store.shard", "data.store.shard_layout"},
    "optuna": {f"probes.search.{module}" for module in ("dashboard", "samplers", "storage", "trial_log")},
    "transformers": {"extract"},
    "typer": {"permafrost.cli"},
    "rich": {"permafrost.cli", "permafrost.display"},
    "IPython": {"permafrost.display.notebook"},
    "matplotlib": {"probes.figures", "probes.reports"},
    "ray": {"permafrost.scaling.ray_address"},
}
"""Third-party package -> the sub-packages, or the modules, that may import it."""

NEVER = {"pickle", "dill", "joblib", "shelve", "marshal"}
HEAVY = {"torch", "transformers", "scipy", "sklearn", "pandas", "optuna", "matplotlib"}
MOST_FILES, MOST_LINES, MOST_FUNCTION, MOST_FLOORS, MEDIAN_FUNCTION = 12, 300, 60, 10, 8


def modules_of(root: Path) -> dict[str, Path]:
    """Module, without the leading ``permafrost.`` for what lies beside the roof -> its file."""
    found = {}
    for top in ("permafrost", "data", "extract", "probes"):
        for folder, folders, files in os.walk(root / top, followlinks=False):
            folders[:] = [name for name in folders if not (Path(folder) / name).is_symlink()]
            for name in files:
                if name.endswith(".py"):
                    path = (Path(folder) / name).relative_to(root)
                    found[".".join(path.with_suffix("").parts)] = root / path
    return {name.removesuffix(".__init__"): path for name, path in sorted(found.items())}


MODULES = modules_of(ROOT)
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


def room_of(module: str) -> str:
    """The sub-package of a module."""
    return module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]


def imports(module: str) -> Iterator[str]:
    """Everything that a module imports, inside functions too, as dotted names."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(module: str) -> set[str]:
    """The modules of this project that a module imports."""
    found = set()
    for name in imports(module):
        if name.split(".")[0] == "permafrost":
            for known in (name, name.rpartition(".")[0]):
                short = known.removeprefix("permafrost.")
                target = known if known in MODULES else short
                if target in MODULES:
                    found.add(target)
                    break
    return found - {module}


OWN = {module: own_imports(module) for module in MODULES}
ROOMS = sorted({room_of(module) for module in MODULES} - {"probes"})


def functions(module: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def longest_chain(graph: dict[str, set[str]]) -> list[str]:
    """The longest chain of imports; fails on a circle."""
    chains: dict[str, list[str]] = {}

    def chain(name: str, above: tuple[str, ...]) -> list[str]:
        assert name not in above, f"circle: {' -> '.join([*above[above.index(name) :], name])}"
        if name not in chains:
            below = (chain(other, (*above, name)) for other in sorted(graph[name]))
            chains[name] = [name, *max(below, key=len, default=[])]
        return chains[name]

    return max((chain(name, ()) for name in sorted(graph)), key=len)


def room_graph() -> dict[str, set[str]]:
    graph: dict[str, set[str]] = {room: set() for room in ROOMS}
    for module, targets in OWN.items():
        if MODULES[module].name != "__init__.py":
            graph[room_of(module)] |= {room_of(target) for target in targets} - {room_of(module)}
    return graph


def test_the_table_has_every_sub_package_and_no_other():
    assert sorted(MAY_IMPORT) == ROOMS


@pytest.mark.parametrize("room", ROOMS)
def test_a_sub_package_imports_what_the_table_says_and_all_of_it(room):
    assert room_graph()[room] == MAY_IMPORT[room]


def test_no_import_goes_round_in_a_circle_and_floors_are_few():
    longest_chain({module: targets for module, targets in OWN.items() if MODULES[module].name != "__init__.py"})
    chain = longest_chain(room_graph())
    assert len(chain) - 1 <= MOST_FLOORS, " -> ".join(chain)


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_library_is_imported_where_it_belongs(package):
    users = {module for module in MODULES if any(name.split(".")[0] == package for name in imports(module))}
    rooms = ONLY_IN[package]
    strangers = {
        module for module in users if not any(module == room or module.startswith(f"{room}.") for room in rooms)
    }
    assert users
    assert not strangers


def test_nothing_unpickles():
    for module in MODULES:
        assert not {name.split(".")[0] for name in imports(module)} & NEVER, module


def test_names_of_folders_are_no_packages_of_their_own():
    for module in MODULES:
        tops = {name.split(".")[0] for name in imports(module)}
        assert not tops & {"data", "extract", "probes", "pipeline"}, module
    for name in ("data", "extract", "probes"):
        child = subprocess.run(
            [sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert f"import permafrost.{name}" in child.stderr


def loaded_by(code: str, among: set[str]) -> set[str]:
    """Which of some packages a program has loaded when it ends."""
    told = f"import sys\n{code}\nprint('loaded', *sorted(set(sys.modules) & {among!r}))"
    said = subprocess.check_output([sys.executable, "-c", told], cwd=ROOT, text=True, timeout=120)
    return set(said.splitlines()[-1].split()[1:])


def test_what_needs_no_torch_loads_none():
    names = [module for module in MODULES if {module, room_of(module)} & NO_TORCH]
    dotted = [name if name.startswith("permafrost") else f"permafrost.{name}" for name in names]
    assert not loaded_by("\n".join(f"import {name}" for name in dotted), {"torch", "transformers"})


def test_a_training_begins_without_what_measures_and_draws():
    assert not loaded_by("import permafrost.cli.main, permafrost.stages", DRAWN)


def test_stage_two_loads_no_language_model():
    names = [f"permafrost.{module}" for module in MODULES if module.startswith("probes")]
    assert not loaded_by(
        "\n".join(f"import {name}" for name in names), {"transformers", "permafrost.extract", *TRACKERS}
    )


LIGHT = [
    ["--help"],
    ["run", "--help"],
    ["report", "--help"],
    ["recipes"],
    ["config", "sts"],
    ["cache", "list", "--cache", "no-such-cache"],
    ["run", "no-such-recipe"],
    ["run", "sts", "--set", "probe.encodr=mlp"],
    ["run", "sts", "--set", "train.epochs=many"],
    ["run", "topic-sentiment", "--only", "no-such-variant"],
    ["run", "quickstart", "--name", "a/b"],
    ["batch", "quickstart", "no-such-recipe"],
    ["batch", "quickstart", "quickstart"],
    ["study", "layers"],
    ["run", "sts", "--set", "upper.cut=4"],
    ["pretrain", "sts"],
    ["pretrain", "sts", "--set", "language.blocks=0"],
    ["study", "pairs"],
    ["ablate", "quickstart", "--set", "finetune.cut=4"],
    ["study", "quickstart", "--trials", "0"],
    ["study", "quickstart", "--storage", "nonsense"],
    ["predict", "no-such-run", "a text"],
    ["report", "no-such-run"],
    ["extract", "quickstart", "--shard", "3/3"],
    ["extract", "no-such-recipe", "--workers", "2"],
]
"""Commands that show something or are refused."""


def test_help_and_refusals_load_nothing_heavy():
    """One process runs them all, and stops after the first that loads something."""
    code = f"""
from permafrost.cli.main import main
for words in {LIGHT!r}:
    sys.argv = ["permafrost", *words]
    try:
        main()
    except SystemExit:
        pass
    if found := sorted(set(sys.modules) & {HEAVY!r}):
        sys.exit(f"{{words}} loads {{found}}")
"""
    assert not loaded_by(code, HEAVY)


@pytest.mark.parametrize("room", ROOMS)
def test_a_sub_package_has_few_files_and_says_what_it_is_for(room):
    files = [module for module in MODULES if room_of(module) == room]
    assert len(files) <= MOST_FILES
    told = " ".join((ast.get_docstring(TREES[room]) or "").split())
    if room != "permafrost":
        allowed = ", ".join(sorted(MAY_IMPORT[room])) or "nothing else here"
        assert f" May import: {allowed}. Start reading at " in told
        file, name = re.search(r"Start reading at (\S+\.py), (\w+)", told).groups()
        assert re.search(rf"^((def|class) )?{name}\b", (MODULES[room].parent / file).read_text(), re.MULTILINE)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_short_and_says_what_it_is_for(module):
    assert ast.get_docstring(TREES[module])
    assert len(MODULES[module].read_text().splitlines()) <= MOST_LINES
    long = {node.name: node.end_lineno - node.lineno + 1 for node in functions(module)}
    assert not {name: lines for name, lines in long.items() if lines > MOST_FUNCTION}


def test_functions_are_short():
    lines = [node.end_lineno - node.lineno + 1 for module in MODULES for node in functions(module)]
    assert median(lines) <= MEDIAN_FUNCTION


def test_every_sub_package_is_in_the_wheel():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    assert sorted(listed) == sorted(name if name.startswith("permafrost") else f"permafrost.{name}" for name in there)
    assert not [pair for pair in pairwise(sorted(listed)) if pair[0] == pair[1]]


@pytest.mark.slow
def test_mypy_looks_at_every_file(tmp_path):
    """As ``make lint`` runs it; a file that no import reaches would be passed over in silence."""
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    assert f"no issues found in {len(MODULES)} source files" in told

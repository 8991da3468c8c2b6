"""The documentation is true: generated pages are current, commands and examples run, named paths and settings exist."""

import contextlib
import importlib
import io
import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

import pytest

from permafrost import api
from permafrost.batches import run_batch
from permafrost.cli.exit_codes import run_guarded
from permafrost.cli.main import app
from permafrost.data.spec import manual
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.metrics import bootstrap
from tests.support.bench import Bench, pairs, write

ROOT = Path(__file__).parents[2]
GUIDE = sorted((ROOT / "docs" / "guide").glob("*.md"))
RUNNABLE = [ROOT / "README.md", *GUIDE]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"(?:<!-- (?P<comment>.*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
TICKED = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
SMALL = [
    *(
        "train.epochs=1",
        "corpus.spread=true",
        "corpus.limits={train=16,validation=9,test=9}",
        "plan.max_tokens=48",
        "plan.stride=4",
        "probe.context_width=8",
    ),
    *("pretraining.train.epochs=1", "pretraining.corpus.limit=12", "ablation.greedy=1", "study.seeds=0"),
    *("language.corpus=samples-sentences", "language.lines=true", "language.vocabulary=", "language.block_tokens=64"),
    *(
        "language.vocabulary_size=300",
        "language.blocks=6",
        "language.width=16",
        "language.heads=2",
        "language.inner=16",
    ),
    *("language.epochs=1", "language.compute_dtype=float32"),
]
"""Overrides that make any recipe small, after those of Bench.settings."""

LAYERS = [f"tasks.{task}.corpus.name=samples-{name}" for task, name in [("sentiment", "tones"), ("question", "topics")]]
LAYERS += [f"tasks.{task}.corpus.name=samples-{name}" for task, name in [("ner", "tags"), ("qa", "questions")]]
LAYERS += ["tasks.ner.plan.max_tokens=48", "tasks.qa.plan.max_tokens=48", "tasks.qa.plan.stride=4"]
LAYERS += ["tasks.qa.corpus.limits={train=16,validation=9,test=9}"]
"""Overrides of the recipe layers, which names corpora for each task."""

VERBS = ("extract", "run", "train", "ablate", "study", "pretrain", "similarity", "batch")
"""Commands and functions that take overrides."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    not_run: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text("utf-8")
    for found in FENCE.finditer(text):
        reason = (found["comment"] or "").removeprefix("not run: ") if found["comment"] else ""
        yield Block(found["language"], found["text"], reason, text[: found.start()].count("\n") + 1)


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture
def builder(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "docs")
    for name in ("build", "result_files", "result_tables"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("build")


def test_generated_pages_are_what_the_generator_makes(builder):
    assert builder.stale() == []


def test_a_page_that_differs_is_named(builder, monkeypatch, capsys):
    monkeypatch.setattr(builder, "readme_table", lambda: "| another table |\n")
    assert builder.main(["--check"]) == 1
    assert capsys.readouterr().out == "README.md differs from what docs/build.py generates; run: python docs/build.py\n"


def test_every_number_of_a_shown_result_comes_from_its_file(builder):
    page = (ROOT / "docs" / "results.md").read_text("utf-8")
    for result in builder.result_files.read_all().values():
        for row in result.get("metrics", ()):
            value = row["value"]
            assert any(f"{value:{style}}" in page for style in (".4f", ".3f", ".6f")), (result["title"], row)


def test_a_finished_run_becomes_a_result(builder, tiny, quick, tmp_path, monkeypatch, trained_only):
    bench = Bench(tmp_path, tiny("bert"))
    done = api.run("pairs", bench.of_pairs("train.epochs=1"), bench.runs)
    monkeypatch.setattr(builder.result_files, "FOLDER", tmp_path)
    (tmp_path / "pairs.json").write_text(json.dumps({"title": "Pairs", "order": 3, "notes": ["Tiny."]}))
    assert builder.main(["add", "pairs", str(done.path)]) == 0
    result = builder.result_files.read("pairs")
    assert (result["title"], result["order"], result["notes"]) == ("Pairs", 3, ["Tiny."])
    assert result["command"].startswith("permafrost run pairs --set device=cpu --set corpus.path=")
    record = json.loads((done.path / "record.json").read_text("utf-8"))
    assert (result["machine"], result["selected"]) == (record["machine"], done.selected)
    measured = {(row["variant"], row["metric"], row["split"], row["value"], row["seed"]) for row in done.metrics}
    assert {row["variant"] for row in result["metrics"]} == {"raw", "weights", "linear"}
    for row in result["metrics"]:
        assert (row["variant"], row["metric"], "test", row["value"], None) in measured
    shown = builder.result_tables.shown(result)
    assert shown.startswith("| variant | view |")
    assert len(shown.splitlines()) == 2 + 3


def test_the_output_of_a_command_becomes_a_result(builder, tmp_path, monkeypatch):
    monkeypatch.setattr(builder.result_files, "FOLDER", tmp_path)
    said = "print('A machine, 2 cores; Python 3.12.0, torch 2.13.0+cpu'); print('  speed  1.5')"
    assert builder.main(["output", "benchmark-speed", "--", sys.executable, "-c", said]) == 0
    result = builder.result_files.read("benchmark-speed")
    assert (result["machine"], result["output"]) == ("A machine, 2 cores", ["  speed  1.5"])
    assert result["versions"] == {"python": "3.12.0", "torch": "2.13.0+cpu"}
    with pytest.raises(SystemExit, match="ended with 3"):
        builder.main(["output", "benchmark-speed", "--", sys.executable, "-c", "raise SystemExit(3)"])


def test_the_readme_fits_its_size():
    assert len((ROOT / "README.md").read_bytes()) <= 8192


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "log.md"], ids=named)
def test_a_page_counts_no_tests_and_times_none(page):
    text = page.read_text("utf-8")
    assert not re.search(r"\d[\d,.]* tests|make test.*\d+ ?(s|min|seconds|minutes)\b", text)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_and_paths_exist(page):
    text = page.read_text("utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path) if path else page
        assert linked.exists(), f"{named(page)} links to {target}"
        assert not anchor or anchor in anchors(linked), f"{named(page)} links to {target}"
    for ticked in TICKED.findall(text):
        for word in ticked.split():
            if re.fullmatch(r"(data|docs|extract|permafrost|probes|tests|benchmarks)/[\w./-]*", word):
                assert (ROOT / word).exists(), f"{named(page)} names {word}"


def anchors(page: Path) -> set[str]:
    """The anchors that a Markdown page gets from its headings."""
    heads = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", GUIDE, ids=named)
def test_settings_that_the_guide_names_exist(page):
    known = {setting.key for setting in manual(Recipe)}
    tables = {name for name, kind in get_type_hints(Recipe).items() if is_dataclass(kind)} | {"pretraining.train"}
    open_tables = tuple(
        f"{key}." for key in ("corpus.limits", "train.rates", "train.freeze", "balancing.weights", "probe.head_options")
    )
    text = page.read_text("utf-8")
    for table, key in re.findall(r"\b([a-z]+)\.([a-z_]+)\b(?!\()", text):
        name = f"{table}.{key}"
        if table in tables and not name.startswith(open_tables) and key not in ("csv", "json", "toml"):
            assert name in known or name in {setting.rpartition(".")[0] for setting in known}, f"{named(page)}: {name}"
    names = {field.name for field in fields(Recipe)}
    assert {table.split(".")[0] for table in re.findall(r"`\[([a-z.]+)\]`", text)} <= names


@pytest.fixture(scope="module")
def backbone(tiny, tmp_path_factory) -> Path:
    """A tiny model with a chat template, and as many blocks as the backbone that the pages cut."""
    folder = Path(shutil.copytree(tiny("bert", blocks=6), tmp_path_factory.mktemp("chat") / "model"))
    template = "{% for message in messages %}{{ message.role }} : {{ message.content }} . {% endfor %}"
    (folder / "chat_template.jinja").write_text(template)
    return folder


@pytest.fixture
def folder(tmp_path, backbone, monkeypatch) -> Path:
    """A working folder with the files that pages name, in which tiny corpora stand for the real ones."""
    Bench(tmp_path / "corpora", backbone).of_named()
    scored = [row for row in pairs() if row[3] != "none"][::3]
    heads = ["first", "second", "score", "split"]
    write(tmp_path / "mine.csv", heads, scored)
    for split in ("train", "validation", "test"):
        write(tmp_path / "folder" / f"{split}.csv", heads[:3], [row[:3] for row in pairs() if row[3] == split][:12])
    labelled = [(row[0], "same" if row[2] > 0.4 else "other", row[3]) for row in pairs()]
    write(tmp_path / "labelled.csv", ["sentence", "label", "split"], labelled)
    write(tmp_path / "reviews.csv", ["sentence"], [row[:1] for row in labelled[:3]])
    triples = [(text, f"{text} yes", f"no {text}", split) for text, _, split in labelled]
    write(tmp_path / "triples.csv", ["query", "positive", "negative", "split"], triples)
    write(tmp_path / "elsewhere.csv", ["text", "label"], [row[:2] for row in labelled[::4]])
    messages = [(text, label, "sad" if "dog" in text else "glad", split) for text, label, split in labelled]
    write(tmp_path / "messages.csv", ["text", "topic", "tone", "split"], messages)
    samples = {"mine.conll": "tags.conll", "mine.json": "questions.json", "requests.csv": "labels.csv"}
    for name, sample in samples.items():
        shutil.copy(ROOT / "data" / "samples" / sample, tmp_path / name)
    reviews = [f'<review label="{row[1]}" split="{row[2]}"><text>{row[0]}</text></review>' for row in labelled]
    (tmp_path / "reviews.xml").write_text(f"<reviews>{''.join(reviews)}</reviews>")
    (tmp_path / "lines.txt").write_text("\n".join(text for text, _, _ in labelled))
    (tmp_path / "questions.txt").write_text("\n".join(f"{label.upper()}:kind {text}" for text, label, _ in labelled))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PERMAFROST_DATA", str(tmp_path / "corpora"))
    monkeypatch.setattr(bootstrap, "RESAMPLES", 50)
    return tmp_path


def small(words: list[str], backbone: Path) -> list[str]:
    """Overrides for a command; those that the page gives stay where they say what is read and what is trained."""
    given = {word.partition("=")[0] for word in words}
    settings = [
        *Bench(Path(), backbone).settings("extract.cache=cache"),
        *SMALL,
        *(LAYERS if "layers" in words[:2] else ()),
    ]
    trained = any(word.startswith("plan.backbone=") and Path(word.partition("=")[2]).is_dir() for word in words)
    own = any('backbone = "language"' in path.read_text("utf-8") for path in recipe_files(words) if path.is_file())
    given = given | {"plan.backbone"} if trained or own else given - {"plan.backbone"}
    if "rank" in words[:2]:  # its queries stay whole
        settings = [setting for setting in settings if not setting.startswith("corpus.spread")]
    if words[0] == "similarity":  # trains nothing, and names its own backbones
        return [setting for setting in settings if setting.startswith("extract.")]
    return [setting for setting in settings if setting.partition("=")[0] not in given]


def recipe_files(words: list[str]) -> list[Path]:
    return [path for word in words[:2] for path in (Path(word), ROOT / "probes" / "recipes" / f"{word}.toml")]


def run_line(line: str, backbone: Path) -> None:
    """A line of a shell block, in this process."""
    program, *words = shlex.split(line, comments=True)
    assert program == "permafrost", line
    if words[0] in VERBS:
        words += [word for setting in small(words, backbone) for word in ("--set", setting)]
    if words[0] == "study":
        words += ["--trials", "2", "--workers", "1"]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_guarded(lambda: app(words, standalone_mode=False))
    assert code == 0, f"{line}\n{out.getvalue()}\n{err.getvalue()}"


def run_python(text: str, names: dict[str, Any], backbone: Path) -> None:
    """A Python block; the functions that take overrides get the small ones too."""
    with pytest.MonkeyPatch.context() as patch:
        for verb in ("extract", "run", "train", "ablate", "study", "pretrain"):
            patch.setattr(api, verb, with_small(getattr(api, verb), backbone))
        patch.setattr(run_batch, "run_batch", partial(run_batch.run_batch, overrides=small(["batch"], backbone)))
        with contextlib.redirect_stdout(io.StringIO()):
            exec(text, names)


def with_small(function: Any, backbone: Path) -> Any:
    def call(recipe: str, overrides: Any = (), **options: Any) -> Any:
        given = list(overrides)
        return function(recipe, [*given, *small([recipe, recipe, *given], backbone)], **options)

    return call


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNABLE, ids=named)
def test_the_examples_of_a_page_run(page, folder, backbone, monkeypatch):
    monkeypatch.setattr("permafrost.probes.reports.report.write_report", lambda folder: None)
    monkeypatch.setattr("permafrost.data.plugin_registry._registered", {})
    names: dict[str, Any] = {}
    for block in blocks(page):
        if block.not_run:
            continue
        if block.language == "sh":
            for line in block.text.splitlines():
                run_line(line, backbone)
        elif block.language == "python":
            run_python(block.text, names, backbone)
        elif block.language == "toml":
            name = re.match(r"# ([\w-]+\.toml)\n", block.text)
            assert name, f"{named(page)}:{block.line}: a recipe begins with a comment that names its file"
            (folder / name[1]).write_text(block.text, "utf-8")
        else:
            assert block.language == "text", f"{named(page)}:{block.line}: name the language of the block"

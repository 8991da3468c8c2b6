"""Report of a finished run: its figures as PNG and SVG files, and one HTML page that opens offline.

It is drawn from the tables of the run folder alone, so it can be drawn again at any time. ``PAGES`` says what the page
of each experiment holds: a new section is a function and a line there.
"""

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib

from permafrost.data.atomic import write_atomically
from permafrost.probes.figures.scatter_3d import latent_scatter
from permafrost.probes.figures.sentence_map import few_points_note
from permafrost.probes.figures.style import SETTINGS
from permafrost.probes.reports import evaluation, metrics, similarity, subsets, summary
from permafrost.probes.reports.breakdown import breakdown_grids, calibration_grid, group_kinds, variant_grids
from permafrost.probes.reports.figures import FIGURES, draw
from permafrost.probes.reports.page import (
    Block,
    FoldedText,
    Scatter,
    Section,
    Tile,
    render_page,
    save_pictures,
)
from permafrost.probes.results.grid import UNDEFINED, Grid, cell_text
from permafrost.probes.results.run_tables import Tables, read_tables
from permafrost.probes.tasks.registry import task_of_predictions

Content = str | Callable[[Tables], Block | Sequence[Block] | None]
"""Name of a figure, or a function that returns blocks."""


def write_report(folder: Path) -> Path:
    """Draw ``figures/*.png``, ``figures/*.svg`` and ``report.html`` of a run folder; return the path of the page.

    Raises:
        ReportError: the run did not finish or is of another version, or a table in it cannot be read.
        DamageError: a table, the recipe or the record is not as the run wrote it.
    """
    run = read_tables(folder)
    page = PAGES[run.experiment]
    with drawing_settings():
        sections = [section for provide in page.sections for section in provide(run)]
        of_tasks = [f"{task}-{name}" for task in run.tasks for name in FIGURES]
        save_pictures(folder, sections, [*FIGURES, *of_tasks])
        content = render_page(run.name, run.experiment, page.lead(run), page.tiles(run), sections)
    write_atomically(folder / "report.html", content)
    return folder / "report.html"


def result_grids(folder: Path) -> list[Grid]:
    """Return the tables of results of a run folder, which the terminal shows too; raises as :func:`write_report`."""
    return grids_of(read_tables(folder))


def grids_of(run: Tables) -> list[Grid]:
    """Return the tables of results of a run."""
    return [block for block in _blocks(run, PAGES[run.experiment].results) if isinstance(block, Grid)]


@contextmanager
def drawing_settings() -> Iterator[None]:
    """Set matplotlib's settings under which all figures are drawn."""
    with matplotlib.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name may be in any script
        yield


def example_blocks(run: Tables) -> Sequence[Block]:
    """Return what the task of a run shows of its predictions.

    Raises:
        ReportError: the table of predictions lacks a column that the task shows.
    """
    task = task_of_predictions(run.kind, run["predictions"])
    return task.examples(run["predictions"]) if task else []


def _blocks(run: Tables, contents: Sequence[Content], task: str = "") -> list[Block]:
    """The blocks of a run that exist; ``task`` is named by the figures of one task of several."""
    made = [draw(run, content, task) if isinstance(content, str) else content(run) for content in contents]
    return [block for some in made for block in (some if isinstance(some, Sequence) else [some]) if block]


def _section(
    name: str, title: str, *contents: Content, note: Callable[[Tables], str] | None = None
) -> Callable[[Tables], list[Section]]:
    """A function that makes a section of these contents."""
    return lambda run: [Section(name, title, note(run) if note else "", _blocks(run, contents))]


def _results(run: Tables) -> list[Section]:
    blocks = _blocks(run, (metrics.results_grid, "variants", "by_layer"))
    undefined = f"“{UNDEFINED}”: a correlation does not exist if all predictions or all targets are the same."
    has_undefined = any(UNDEFINED in row for block in blocks if isinstance(block, Grid) for row in block.rows)
    return [Section("results", "Results", undefined if has_undefined else "", blocks)]


def _tasks(run: Tables) -> list[Section]:
    """A section per task of several: what the page of a run of that task alone would show."""
    sections = []
    for task in run.tasks:
        tables = run.for_task(task)
        blocks = [*_blocks(tables, [metrics.results_grid]), *variant_grids(run, task)]
        for kind, about in group_kinds(tables).items():
            figure = draw(tables, f"by_{kind.replace(' ', '_')}", task, about.note)
            blocks += [*([figure] if figure else []), *breakdown_grids(tables, kind)]
        blocks += _blocks(tables, PREDICTIONS, task)
        has_predictions = len(tables["predictions"])
        chosen = f"Groups and predictions are those of “{cell_text(tables.selected, 60)}”." if has_predictions else ""
        sections.append(Section(f"task-{task}", cell_text(task), chosen, blocks))
    return sections


def _breakdowns(run: Tables) -> list[Section]:
    sections = []
    for kind, about in group_kinds(run).items():
        name = f"by-{re.sub('[^a-z]+', '-', kind)}"
        blocks = [*_blocks(run, [name.replace("-", "_")]), *breakdown_grids(run, kind)]
        sections.append(Section(name, f"By {cell_text(kind, 40)}", about.note, blocks))
    return sections


def _pairs(run: Tables) -> list[Section]:
    """A section per evaluation of several: what the page of it alone would show."""
    sections = []
    for name in filter(run.tasks.__contains__, evaluation.evaluations(run)):
        about = evaluation.evaluations(run)[name]
        tables = evaluation.pair_tables(run, name)
        blocks = _blocks(tables, [metrics.results_grid])
        for kind, group in group_kinds(tables).items():
            figure = draw(tables, f"by_{kind.replace(' ', '_')}", name, group.note)
            blocks += [*([figure] if figure else []), *breakdown_grids(tables, kind)]
        blocks += _blocks(tables, PREDICTIONS, name)
        sections.append(Section(f"pair-{name}", cell_text(f"{about['run']} on {about['data']}", 80), "", blocks))
    return sections


def _latents(run: Tables) -> Scatter | None:
    return Scatter(latent_scatter(run["latents"])) if len(run["latents"]) else None


def _latents_note(run: Tables) -> str:
    rows = run["latents"][run["latents"]["method"] == "tsne"]
    caution = few_points_note(rows.groupby(["plan", "view", "layer"], dropna=False).size())
    return f"Coordinates of texts, projected to three dimensions. {caution}".strip()


def _recipe(run: Tables) -> FoldedText | None:
    return FoldedText("recipe.toml", run.recipe) if run.recipe else None


@dataclass(frozen=True)
class Page:
    """What the page of an experiment holds."""

    lead: Callable[[Tables], str]
    """A sentence below the title."""

    tiles: Callable[[Tables], list[Tile]]
    results: Sequence[Content]
    """The tables of results, which the terminal shows too."""

    sections: Sequence[Callable[[Tables], list[Section]]]
    """Sections in order; one without blocks is left out."""


PREDICTIONS = ("predicted_against_gold", "confusion", "confusions", calibration_grid, "reliability", example_blocks)

PROVENANCE = _section("provenance", "What ran", summary.provenance, _recipe)

VARIANTS = Page(
    summary.probe_lead, summary.run_tiles, [metrics.results_grid, calibration_grid, metrics.comparisons_grid],
    [
        _results,
        _section("comparisons", "Side by side", metrics.comparisons_grid),
        _section("probe", "Probe", "diagram"),
        _tasks,
        _breakdowns,
        _section("predictions", "Predictions", *PREDICTIONS),
        _section("learning", "Training", "training", "by_epoch", "by_epoch_second", metrics.epochs_grid, "weights",
            "conflicts", "autoencoder", note=metrics.frozen_note),
        _section("space", "Latents", _latents, note=_latents_note),
        PROVENANCE,
    ],
)  # fmt: skip

PAGES = {
    "run": VARIANTS,
    "multitask": VARIANTS,
    "layers": Page(summary.probe_lead, summary.subset_tiles, [subsets.tasks_grid, subsets.layers_grid], [
        _section("tasks", "Tasks by layer", subsets.tasks_grid, "layer_map", subsets.layers_grid, "layer_curves",
            subsets.subset_grids),
        PROVENANCE,
    ]),
    "ablation": Page(summary.probe_lead, summary.subset_tiles, [lambda run: subsets.subset_grids(run)[:1]], [
        _section("layers", "Ablation", "layer_curves", "choices", "selectivity", subsets.subset_grids),
        PROVENANCE,
    ]),
    "study": Page(summary.probe_lead, summary.duration_tiles, [summary.trial_grids], [
        _section("search", "Study", summary.trial_grids, "history", "intermediate", "importances", "unexplained",
            note=summary.trials_note),
        PROVENANCE,
    ]),
    "evaluation": Page(
        evaluation.evaluation_lead, evaluation.evaluation_tiles,
        [evaluation.single_grids, evaluation.transfer_grids, calibration_grid, evaluation.comparison_grids],
        [
            _section("results", "Results", evaluation.single_grids, evaluation.transfer_grids, "transfer",
                evaluation.rows_grid),
            _section("comparisons", "Side by side", evaluation.comparison_grids),
            _pairs,
            _breakdowns,
            _section("predictions", "Predictions", *PREDICTIONS),
            PROVENANCE,
        ],
    ),
    "similarity": Page(similarity.similarity_lead, similarity.similarity_tiles, [similarity.cosine_grids], [
        similarity.similarity_sections, PROVENANCE,
    ]),
    "pretraining": Page(summary.pretraining_lead, summary.pretraining_tiles, [summary.pretraining_grids], [
        _section("results", "Results", summary.pretraining_grids, "loss"), PROVENANCE,
    ]),
}  # fmt: skip
"""Experiment, as the record names it -> its page."""

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
from permafrost.probes.figures.style import SETTINGS
from permafrost.probes.reports import metrics, similarity, subsets, summary
from permafrost.probes.reports.breakdown import breakdown_grids, variant_grids
from permafrost.probes.reports.figures import draw, figure_names
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

GROUP_NOTES = {
    "class": "",
    "label": "",
    "entity type": "",
    "question word": "The first question word of a question; “other” has none.",
    "pattern": "Negation: not, n’t, no, never, nobody, nothing, none, neither, nor, without or cannot; of pairs, in "
    "the second text. Overlap of words is high if the first text has at least half of the second's.",
}
"""Kind of group that a breakdown may have -> note on the groups; its figure is ``by_<kind>``."""


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
        save_pictures(folder, sections, figure_names(run))
        content = render_page(run.name, run.experiment, page.lead(run), page.tiles(run), sections)
    write_atomically(folder / "report.html", content)
    return folder / "report.html"


def result_grids(folder: Path) -> list[Grid]:
    """Return the tables of results of a run folder, which the terminal shows too; raises as :func:`write_report`."""
    run = read_tables(folder)
    return PAGES[run.experiment].results(run)


@contextmanager
def drawing_settings() -> Iterator[None]:
    """Set matplotlib's settings under which all figures are drawn."""
    with matplotlib.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name may be in any script
        yield


def _section(name: str, title: str, note: str, *blocks: Block | None) -> list[Section]:
    """A section of the blocks that exist."""
    return [Section(name, title, note, [block for block in blocks if block])]


def _variant_results(run: Tables) -> list[Grid]:
    grids = (metrics.results_grid(run), metrics.comparisons_grid(run))
    return [grid for grid in grids if grid]


def _results(run: Tables) -> list[Section]:
    table = metrics.results_grid(run)
    undefined = f"“{UNDEFINED}”: a correlation does not exist if all predictions or all targets are the same."
    note = undefined if table and any(UNDEFINED in row for row in table.rows) else ""
    return [
        *_section("results", "Results", note, table, draw(run, "variants"), draw(run, "by_layer")),
        *_section("comparisons", "Side by side", "", metrics.comparisons_grid(run)),
        *_section("probe", "Probe", "", draw(run, "diagram")),
    ]


def _tasks(run: Tables) -> list[Section]:
    """A section per task of several: what the page of a run of that task alone would show."""
    return [section for task in run.tasks for section in _task(run.for_task(task), run, task)]


def example_blocks(run: Tables) -> Sequence[Block]:
    """Return what the task of a run shows of its predictions.

    Raises:
        ReportError: the table of predictions lacks a column that the task shows.
    """
    task = task_of_predictions(run.kind, run["predictions"])
    return task.examples(run["predictions"]) if task else []


def _task(tables: Tables, run: Tables, task: str) -> list[Section]:
    blocks: list[Block | None] = [metrics.results_grid(tables), *variant_grids(run, task)]
    for kind, note in _group_notes(tables).items():
        blocks += [draw(tables, f"by_{kind.replace(' ', '_')}", task, note), *breakdown_grids(tables, kind)]
    blocks += _prediction_blocks(tables, task)
    has_predictions = len(tables["predictions"])
    chosen = f"Groups and predictions are those of “{cell_text(tables.selected, 60)}”." if has_predictions else ""
    return _section(f"task-{task}", cell_text(task), chosen, *blocks)


def _breakdowns(run: Tables) -> list[Section]:
    sections = []
    for kind, note in _group_notes(run).items():
        name = f"by-{re.sub('[^a-z]+', '-', kind)}"
        blocks = (draw(run, name.replace("-", "_")), *breakdown_grids(run, kind))
        sections += _section(name, f"By {cell_text(kind, 40)}", note, *blocks)
    return sections


def _group_notes(run: Tables) -> dict[str, str]:
    """Return the kinds of groups of a run with their notes; those that are not known have none, and no figure."""
    return GROUP_NOTES | {kind: GROUP_NOTES.get(kind, "") for kind in map(str, run["breakdown"]["kind"].unique())}


def _predictions(run: Tables) -> list[Section]:
    return _section("predictions", "Predictions", "", *_prediction_blocks(run))


def _prediction_blocks(tables: Tables, task: str = "") -> list[Block | None]:
    pictures = [draw(tables, name, task) for name in ("predicted_against_gold", "confusion", "confusions")]
    return [*pictures, *example_blocks(tables)]


def _learning(run: Tables) -> list[Section]:
    names = ("training", "by_epoch", "by_epoch_second")
    before = [draw(run, name) for name in names]
    after = [draw(run, name) for name in ("weights", "conflicts", "autoencoder")]
    return _section("learning", "Training", metrics.frozen_note(run), *before, metrics.epochs_grid(run), *after)


def _latents(run: Tables) -> list[Section]:
    cloud = Scatter(latent_scatter(run["latents"])) if len(run["latents"]) else None
    return _section("space", "Latents", "Coordinates of texts, projected to three dimensions.", cloud)


def _layers(run: Tables) -> list[Section]:
    blocks = (subsets.tasks_grid(run), draw(run, "layer_map"), subsets.layers_grid(run), draw(run, "layer_curves"))
    return _section("tasks", "Tasks by layer", "", *blocks, *subsets.subset_grids(run))


def _layer_results(run: Tables) -> list[Grid]:
    return [grid for grid in (subsets.tasks_grid(run), subsets.layers_grid(run)) if grid]


def _ablation(run: Tables) -> list[Section]:
    drawings = [draw(run, name) for name in ("layer_curves", "choices", "selectivity")]
    return _section("layers", "Ablation", "", *drawings, *subsets.subset_grids(run))


def _study(run: Tables) -> list[Section]:
    drawings = [draw(run, name) for name in ("history", "intermediate", "importances", "unexplained")]
    return _section("search", "Study", summary.trials_note(run), *summary.trial_grids(run), *drawings)


def _pretraining(run: Tables) -> list[Section]:
    return _section("results", "Results", "", *summary.pretraining_grids(run), draw(run, "loss"))


def _provenance(run: Tables) -> list[Section]:
    recipe = FoldedText("recipe.toml", run.recipe) if run.recipe else None
    return _section("provenance", "What ran", "", summary.provenance(run), recipe)


@dataclass(frozen=True)
class Page:
    """What the page of an experiment holds."""

    lead: Callable[[Tables], str]
    """A sentence below the title."""

    tiles: Callable[[Tables], list[Tile]]
    results: Callable[[Tables], list[Grid]]
    """The tables of results, which the terminal shows too."""

    sections: Sequence[Callable[[Tables], list[Section]]]
    """Sections in order; one without blocks is left out."""


VARIANTS = Page(
    summary.probe_lead,
    summary.run_tiles,
    _variant_results,
    (_results, _tasks, _breakdowns, _predictions, _learning, _latents, _provenance),
)

PAGES = {
    "run": VARIANTS,
    "multitask": VARIANTS,
    "layers": Page(summary.probe_lead, summary.subset_tiles, _layer_results, (_layers, _provenance)),
    "ablation": Page(
        summary.probe_lead, summary.subset_tiles, lambda run: subsets.subset_grids(run)[:1], (_ablation, _provenance)
    ),
    "study": Page(summary.probe_lead, summary.duration_tiles, summary.trial_grids, (_study, _provenance)),
    "similarity": Page(
        similarity.similarity_lead, similarity.similarity_tiles, similarity.cosine_grids,
        (similarity.similarity_sections, _provenance),
    ),
    "pretraining": Page(
        summary.pretraining_lead, summary.pretraining_tiles, summary.pretraining_grids, (_pretraining, _provenance)
    ),
}  # fmt: skip
"""Experiment, as the record names it -> its page."""

"""Report of a finished run: its figures as PNG and SVG files, and one HTML page that opens offline.

It is drawn from the tables of the run folder alone, so it can be drawn again at any time.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from permafrost.probes.figures import ablation as ablation_figures
from permafrost.probes.figures import breakdown as breakdown_figures
from permafrost.probes.figures import layers as layers_figures
from permafrost.probes.figures import metrics as metrics_figures
from permafrost.probes.figures import multitask as multitask_figures
from permafrost.probes.figures import study as study_figures
from permafrost.probes.figures.confusion import confusions
from permafrost.probes.figures.diagram import diagram
from permafrost.probes.figures.scatter_3d import latent_scatter
from permafrost.probes.figures.style import SETTINGS
from permafrost.probes.reports import language_model, multitask, similarity, summary
from permafrost.probes.reports.breakdown import breakdown_grids, variant_grids
from permafrost.probes.reports.examples import example_blocks
from permafrost.probes.reports.layers import all_lines_grid, summary_grid
from permafrost.probes.reports.page import (
    Block,
    FoldedText,
    Picture,
    Scatter,
    Section,
    cell_text,
    figures_folder,
    render_page,
    replace_file,
    save_picture,
)
from permafrost.probes.results.run_folder import ReportError, RunFolder
from permafrost.probes.results.run_tables import Tables, read_tables

__all__ = ["FIGURES", "ReportError", "draw", "write_report"]

FIGURES: dict[str, Callable[[Tables], Figure | None]] = {
    "by_layer": metrics_figures.by_layer,
    "ladder": metrics_figures.ladder,
    "diagram": diagram,
    "predicted_against_gold": metrics_figures.predicted_against_gold,
    "confusion": metrics_figures.confusion,
    "confusions": confusions,
    "by_class": breakdown_figures.by_class,
    "by_entity_type": breakdown_figures.by_entity_type,
    "by_pattern": breakdown_figures.by_pattern,
    "by_question_word": breakdown_figures.by_question_word,
    "layer_map": layers_figures.layer_map,
    "layer_curves": layers_figures.layer_curves,
    "variants": multitask_figures.variants,
    "losses": multitask_figures.losses,
    "by_epoch": multitask_figures.by_epoch,
    "by_epoch_second": multitask_figures.by_epoch_second,
    "weights": multitask_figures.weights,
    "conflicts": multitask_figures.conflicts,
    "training": metrics_figures.training,
    "autoencoder": metrics_figures.autoencoder,
    "ablation": ablation_figures.ablation,
    "choices": ablation_figures.choices,
    "selectivity": ablation_figures.selectivity,
    "history": study_figures.history,
    "intermediate": study_figures.intermediate,
    "importances": study_figures.importances,
    "unexplained": study_figures.unexplained,
}
"""Name of a figure, and of its files -> the function that draws it; None if the run has not its tables."""

CAPTIONS: dict[str, tuple[str, str]] = {
    "by_layer": (
        "By layer",
        "Cosine of raw latents, a line per view, with 95 % intervals; the line across is the chosen variant.",
    ),
    "ladder": ("Variants", "Every variant, and the untrained reference in grey, with 95 % intervals over rows."),
    "diagram": ("The probe", "From latents, a box per capture plan and view, to the prediction."),
    "predicted_against_gold": (
        "Predicted against gold",
        "A point per row, of the first seed, at most 5,000; the dashed line is equality.",
    ),
    "confusion": (
        "Confusion",
        "Rows are gold classes or tags, columns predicted ones, of the first seed; darker is a larger share of a row.",
    ),
    "confusions": (
        "Confusion by variant",
        "As above, of the first seed of every variant; darker is a larger share of a row.",
    ),
    "by_class": ("By class", "Precision, recall and F1 of each class, with 95 % intervals over rows."),
    "by_entity_type": (
        "By type",
        "An entity is right if both its ends and its type are, as seqeval counts; intervals are over sentences.",
    ),
    "by_pattern": (
        "By pattern",
        "Each group of rows beside its complement: a group with a larger share of mistakes than of rows is hard.",
    ),
    "by_question_word": ("By question word", "Exact match and F1 of the questions with each question word."),
    "layer_map": (
        "Tasks by layer",
        "A row per task, in its own metric and on its own scale; darker is nearer to the best value of the task.",
    ),
    "layer_curves": (
        "Tasks by layer, with controls",
        "Bands are 95 % intervals; controls are dashed; dotted across, all layers together.",
    ),
    "variants": (
        "Variants by task",
        "The selection metric, with 95 % intervals over rows; the chosen variant is filled, the untrained reference "
        "grey. A variant without a point was not trained on that task.",
    ),
    "losses": (
        "Loss",
        "Mean loss of the training rows in each epoch, before any weight; each task has its own scale.",
    ),
    "by_epoch": (
        "By epoch",
        "Epoch 0 is before training. Lines are means over seeds; bands reach from the lowest seed to the highest.",
    ),
    "by_epoch_second": ("By epoch, another metric", "Lines and bands as above."),
    "weights": ("Weights", "Weight of each task's loss by epoch, for the variants whose balancer changes it."),
    "conflicts": (
        "Gradients",
        "Cosine of two tasks' gradients with respect to their shared parameters. Below 0 the tasks conflict.",
    ),
    "training": ("Training", "A line per seed. The epoch with the best metric is kept."),
    "autoencoder": ("Autoencoder", "Means over seeds. A layer of large norm weighs more in a squared error."),
    "ablation": (
        "Layers",
        "The probe trained again on subsets of the layers; bands are 95 % intervals, controls are dashed.",
    ),
    "choices": ("Views and backbones", "The same probe on other latents; hollow points are controls."),
    "selectivity": (
        "Selectivity",
        "How much better the probe fits its training rows than the same rows with shuffled targets, which it can only "
        "memorise.",
    ),
    "history": ("History", "A point per trial; the line is the best value so far, a cross is a trial that was pruned."),
    "intermediate": ("While training", "Values that trials reported at each step; dashed ones were pruned."),
    "importances": ("Importance", "How much of the spread of values each searched setting accounts for."),
    "unexplained": (
        "Reconstruction and score",
        "A better reconstruction (further left) need not mean a better score (further up).",
    ),
}
"""Name of a figure -> its title and its caption on the page."""

BREAKDOWNS = {
    "class": ("by_class", ""),
    "entity type": ("by_entity_type", ""),
    "question word": ("by_question_word", "The first question word of a question; “other” has none."),
    "pattern": (
        "by_pattern",
        "Negation: not, n’t, no, never, nobody, nothing, none, neither, nor, without or cannot; of pairs, in the "
        "second text. Overlap of words is high if the first text has at least half of the second's.",
    ),
}
"""Kind of group -> its figure, and a note on the groups."""

TASK_FIGURES = (*(figure for figure, _ in BREAKDOWNS.values()), "predicted_against_gold", "confusion", "confusions")
"""Figures that are drawn for each task of a run of several tasks."""

Pictures = dict[str, Picture]
"""By name; figures of a task are called ``<task>-<name>``."""


def write_report(folder: Path) -> Path:
    """Draw ``figures/*.png``, ``figures/*.svg`` and ``report.html`` of a run folder; return the path of the page.

    Raises:
        ReportError: the run did not finish or is of another version, or a table in it cannot be read.
        DamageError: a table, the recipe or the record is not as the run wrote it.
    """
    run_folder = RunFolder(folder, ReportError)
    if run_folder.has("cosines.csv"):
        return similarity.write_page(folder)
    if run_folder.has("losses.csv"):
        return language_model.write_page(folder)
    run = read_tables(folder)
    with matplotlib.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name may be in any script
        names = [*FIGURES, *(f"{task}-{name}" for task in run.tasks for name in TASK_FIGURES)]
        pictures = _save_pictures(figures_folder(folder), draw(run), names)
        tiles = multitask.multitask_tiles(run) + summary.duration_tiles(run) if run.tasks else summary.run_tiles(run)
        page = render_page(run.name, "run", lead(run), tiles, sections(run, pictures))
    replace_file(folder / "report.html", page.encode("utf-8", "replace"))
    return folder / "report.html"


def draw(run: Tables) -> dict[str, Figure]:
    """Draw every figure whose tables the run has; keys are names, or ``<task>-<name>`` for a task of several."""
    figures = {name: draw_figure(run) for name, draw_figure in FIGURES.items()}
    for task in run.tasks:
        tables = run.for_task(task)
        figures |= {f"{task}-{name}": FIGURES[name](tables) for name in TASK_FIGURES}
    return {name: figure for name, figure in figures.items() if figure}


def lead(run: Tables) -> str:
    """Return a sentence that says what was trained on which backbones and corpus, and how the variant was chosen."""
    backbones = cell_text(", ".join(dict.fromkeys(run.metrics["backbone"])) or "a frozen backbone", 120)
    corpus = run.record_table("corpus").get("name")
    on = f" on {cell_text(corpus, 80)}" if corpus else ""
    chosen = f" Chosen on {run.selection} by {cell_text(run.metric, 40)}." if run.selected and run.layers.empty else ""
    if run.tasks:
        names = run.task_names
        tasks = f"{len(names)} tasks on {backbones}: {cell_text(', '.join(names), 300)}."
        return f"{tasks if len(names) > 1 else f'The task {names[0]} on {backbones}.'} Chosen on {run.selection}."
    return f"Probes on latents of {backbones}{on}.{chosen}"


def sections(run: Tables, pictures: Pictures) -> list[Section]:
    """Return the sections of the page in order; a figure or table without data is left out of its section."""

    def only(*blocks: str | Block | None) -> Sequence[Block]:
        """The blocks that exist; a text is the name of a picture."""
        existing = [pictures.get(block) if isinstance(block, str) else block for block in blocks]
        return [block for block in existing if block]

    undefined = f"“{summary.UNDEFINED}”: a correlation does not exist if all predictions or all targets are the same."
    table = multitask.variants_grid(run) or summary.headline_grid(run)
    note = undefined if table and any(summary.UNDEFINED in row for row in table.rows) else ""
    cloud = Scatter(latent_scatter(run.latents)) if len(run.latents) else None
    by_layer = (summary_grid(run), all_lines_grid(run))
    recipe = FoldedText("recipe.toml", run.recipe) if run.recipe else None
    epochs = ("losses", "by_epoch", "by_epoch_second", multitask.epochs_grid(run), "weights", "conflicts")
    return [
        Section("results", "Results", note, only(table, "variants", "ladder", "by_layer")),
        Section("comparisons", "Side by side", "", only(multitask.comparisons_grid(run))),
        Section("probe", "Probe", "", only("diagram")),
        Section("tasks", "Tasks by layer", "", only("layer_map", by_layer[0], "layer_curves", by_layer[1])),
        *(_task_section(run, task, pictures) for task in run.tasks),
        *(
            Section(
                f"by-{kind.replace(' ', '-')}", f"By {kind}", note, only(figure, *breakdown_grids(run, kind))
            )
            for kind, (figure, note) in BREAKDOWNS.items()
        ),
        Section(
            "predictions", "Predictions", "",
            only("predicted_against_gold", "confusion", summary.errors_grid(run), *example_blocks(run)),
        ),
        Section("learning", "Training", multitask.frozen_note(run), only("training", *epochs, "autoencoder")),
        Section("layers", "Ablation", "", only("ablation", "choices", "selectivity", summary.ablation_grid(run))),
        Section(
            "search", "Study", summary.trials_note(run), only("history", "intermediate", "importances", "unexplained")
        ),
        Section("space", "Latents", "Coordinates of texts, projected to three dimensions.", only(cloud)),
        Section("provenance", "What ran", "", only(summary.provenance(run), recipe)),
    ]  # fmt: skip


def _task_section(run: Tables, task: str, pictures: Pictures) -> Section:
    """The section of one task of several: what the page of a run of that task alone would show."""
    tables = run.for_task(task)
    blocks: list[Block | None] = [summary.headline_grid(tables), *variant_grids(run, task)]
    for kind, (figure, note) in BREAKDOWNS.items():
        picture = pictures.get(f"{task}-{figure}")
        blocks.append(replace(picture, caption=f"{picture.caption} {note}".strip()) if picture else None)
        blocks += breakdown_grids(tables, kind)
    blocks += [pictures.get(f"{task}-{name}") for name in ("predicted_against_gold", "confusion", "confusions")]
    blocks += [summary.errors_grid(tables), *example_blocks(tables)]
    chosen = (
        f"Groups and predictions are those of “{cell_text(tables.selected, 60)}”." if len(tables.predictions) else ""
    )
    return Section(f"task-{task}", cell_text(task), chosen, [block for block in blocks if block])


def _save_pictures(folder: Path, figures: dict[str, Figure], names: Sequence[str]) -> Pictures:
    """Write figures to files; remove the files of other names that an earlier report has written."""
    pictures = {}
    for name in names:
        if name not in figures:
            for kind in ("png", "svg"):
                (folder / f"{name}.{kind}").unlink(missing_ok=True)
            continue
        task, _, figure_name = name.rpartition("-")
        title, caption = CAPTIONS[figure_name]
        pictures[name] = save_picture(folder, name, figures[name], f"{task}: {title}" if task else title, caption)
    return pictures

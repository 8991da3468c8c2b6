"""The report of a run: its figures as PNG and SVG, and one HTML page that opens offline.

It is drawn from the tables of the run folder and from nothing else, so it can be drawn again at any time.
"""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from probes import ablation_figures, breakdown_figures, figures, layers_figures, similarity_page, study_figures, summary
from probes.diagram import diagram
from probes.drawing import SETTINGS
from probes.marked import marked
from probes.page import Block, Fold, Picture, Section, Turnable, render, replace_file, tidy
from probes.pictures import figures_folder, save_picture
from probes.scatter import panels
from probes.tables import ReportError, Tables, read_tables

__all__ = ["FIGURES", "ReportError", "draw", "write_report"]

FIGURES: dict[str, Callable[[Tables], Figure | None]] = {
    "by_layer": figures.by_layer,
    "ladder": figures.ladder,
    "diagram": diagram,
    "predicted_against_gold": figures.predicted_against_gold,
    "confusion": figures.confusion,
    "by_class": breakdown_figures.by_class,
    "by_entity_type": breakdown_figures.by_entity_type,
    "by_pattern": breakdown_figures.by_pattern,
    "by_question_word": breakdown_figures.by_question_word,
    "layer_map": layers_figures.layer_map,
    "layer_curves": layers_figures.layer_curves,
    "training": figures.training,
    "autoencoder": figures.autoencoder,
    "ablation": ablation_figures.ablation,
    "choices": ablation_figures.choices,
    "selectivity": ablation_figures.selectivity,
    "history": study_figures.history,
    "intermediate": study_figures.intermediate,
    "importances": study_figures.importances,
    "unexplained": study_figures.unexplained,
}
CAPTIONS: dict[str, tuple[str, str]] = {
    "by_layer": (
        "By layer",
        "The cosine of raw latents, a line a view, with its 95 % interval; across, what was chosen.",
    ),
    "ladder": ("Variants", "Every variant and what is said without training (grey), with 95 % intervals over rows."),
    "diagram": ("The probe", "From latents, a box a capture plan and view, to what is predicted."),
    "predicted_against_gold": (
        "Predicted against gold",
        "One point a row, of the first seed, at most 5,000; the dashed line is equality.",
    ),
    "confusion": (
        "Confusion",
        "Rows are gold classes or tags, columns predicted ones, of the first seed; darker is a larger share of a row.",
    ),
    "by_class": ("By class", "How many of the rows said to be of a class are, how many of its rows are found, and F1."),
    "by_entity_type": (
        "By type",
        "An entity counts where both its ends and its type are right, as seqeval counts; intervals over sentences.",
    ),
    "by_pattern": (
        "By pattern",
        "Each group of rows beside its complement: a group with a larger share of mistakes than of rows is hard.",
    ),
    "by_question_word": ("By question word", "Exact match and F1 of the questions that each word asks."),
    "layer_map": (
        "Tasks by layer",
        "A row a task, in its own metric; darker is nearer to that task's best. No two rows are on one scale.",
    ),
    "layer_curves": (
        "Tasks by layer, with controls",
        "Bands are 95 % intervals; controls are dashed; dotted across, all layers together.",
    ),
    "training": ("Training", "A line a seed. The epoch with the best metric is the one that is kept."),
    "autoencoder": ("Autoencoder", "Means over seeds. A layer of large norm weighs more in a squared error."),
    "ablation": ("Layers", "The probe trained again on some of the layers; bands are 95 % intervals, controls dashed."),
    "choices": ("Views and backbones", "The same probe on other latents; hollow points are controls."),
    "selectivity": (
        "Selectivity",
        "How much better the probe fits its training rows than the same rows with shuffled targets, learnt by heart.",
    ),
    "history": ("History", "One point a trial; the line is the best so far, a cross is a trial that was pruned."),
    "intermediate": ("While training", "What trials reported at each step; dashed ones were pruned."),
    "importances": ("Importance", "How much of the spread of values each searched setting accounts for."),
    "unexplained": (
        "Reconstruction and score",
        "A better reconstruction, further left, need not be a better score, further up.",
    ),
}
BROKEN_DOWN = {
    "class": ("by_class", ""),
    "entity type": ("by_entity_type", ""),
    "question word": ("by_question_word", "The first question word of a question; “other” has none."),
    "pattern": (
        "by_pattern",
        "Negation: not, n’t, no, never, nobody, nothing, none, neither, nor, without or cannot; of pairs, in the "
        "second text. Overlap of words is high where the first text has at least half of the second's.",
    ),
}
"""Kind of group -> its figure, and what the groups are."""


def write_report(folder: Path) -> Path:
    """Draw ``figures/*.png``, ``figures/*.svg`` and ``report.html`` of a run folder from its tables.

    Raises:
        ReportError: the run did not finish, or a table in it cannot be read.
    """
    if (folder / "cosines.csv").is_file():
        return similarity_page.write_page(folder)
    run = read_tables(folder)
    with matplotlib.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name may be in any script
        pictures = _save(figures_folder(folder), draw(run))
        page = render(run.name, "run", lead(run), summary.tiles(run), sections(run, pictures))
    replace_file(folder / "report.html", page.encode("utf-8", "replace"))
    return folder / "report.html"


def draw(run: Tables) -> dict[str, Figure]:
    """Every figure whose tables are there, by name."""
    made = {name: function(run) for name, function in FIGURES.items()}
    return {name: figure for name, figure in made.items() if figure}


def lead(run: Tables) -> str:
    """What the run is about, in a sentence."""
    backbones = tidy(", ".join(dict.fromkeys(run.metrics["backbone"])) or "a frozen backbone", 120)
    corpus = run.told("corpus").get("name")
    on = f" on {tidy(corpus, 80)}" if corpus else ""
    chosen = f" Chosen on {run.selection} by {tidy(run.metric, 40)}." if run.selected and run.layers.empty else ""
    return f"Probes on latents of {backbones}{on}.{chosen}"


def sections(run: Tables, pictures: dict[str, Picture]) -> list[Section]:
    """The page in its order; what has no table has no block."""

    def only(*blocks: str | Block | None) -> Sequence[Block]:
        found = [pictures.get(block) if isinstance(block, str) else block for block in blocks]
        return [block for block in found if block]

    undefined = (
        f"“{summary.UNDEFINED}” stands where a correlation does not exist: predictions or targets are all the same."
    )
    table = summary.headline(run)
    note = undefined if table and any(summary.UNDEFINED in row for row in table.rows) else ""
    cloud = Turnable(panels(run.latents)) if len(run.latents) else None
    wrong = summary.worst(run)
    by_layer = (layers_figures.summary_grid(run), layers_figures.every_grid(run))
    recipe = Fold("recipe.toml", run.recipe) if run.recipe else None
    return [
        Section("results", "Results", note, only(table, "ladder", "by_layer")),
        Section("probe", "Probe", "", only("diagram")),
        Section("tasks", "Tasks by layer", "", only("layer_map", by_layer[0], "layer_curves", by_layer[1])),
        *(
            Section(
                f"by-{kind.replace(' ', '-')}", f"By {kind}", note, only(figure, *breakdown_figures.grids(run, kind))
            )
            for kind, (figure, note) in BROKEN_DOWN.items()
        ),
        Section("predictions", "Predictions", "", only("predicted_against_gold", "confusion", wrong, *marked(run))),
        Section("learning", "Training", "", only("training", "autoencoder")),
        Section("layers", "Ablation", "", only("ablation", "choices", "selectivity", summary.ablated(run))),
        Section(
            "search", "Study", summary.searched(run), only("history", "intermediate", "importances", "unexplained")
        ),
        Section("space", "Latents", "Coordinates of texts, projected to three dimensions.", only(cloud)),
        Section("provenance", "What ran", "", only(summary.provenance(run), recipe)),
    ]


def _save(folder: Path, drawn: dict[str, Figure]) -> dict[str, Picture]:
    pictures = {}
    for name in FIGURES:
        if name not in drawn:
            for kind in ("png", "svg"):
                (folder / f"{name}.{kind}").unlink(missing_ok=True)
            continue
        pictures[name] = save_picture(folder, name, drawn[name], *CAPTIONS[name])
    return pictures

"""Every figure of a page: its name, title and caption, and the function that draws it from the tables of a run."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from matplotlib.figure import Figure

from permafrost.probes.figures import breakdown, metrics, predictions, study, subsets, training
from permafrost.probes.figures.diagram import diagram
from permafrost.probes.reports.page import Picture
from permafrost.probes.results.run_tables import Tables


@dataclass(frozen=True)
class FigureSpec:
    """A figure of the page."""

    name: str
    """Name of its files, and its place on the page."""

    title: str
    draw: Callable[[Tables], Figure | None]
    """Draws it; None if the run does not have its tables."""

    caption: str


SPECS = (
    FigureSpec("variants", "Variants", metrics.variants,
        "The selection metric, with 95 % intervals over rows; the chosen variant is filled, the untrained reference "
        "grey. A variant without a point was not trained on that task."),
    FigureSpec("by_layer", "By layer", metrics.by_layer,
        "Cosine of raw latents, a line per view, with 95 % intervals; the line across is the chosen variant."),
    FigureSpec("diagram", "The probe", diagram,
        "From latents, a box per capture plan and view, to the prediction."),
    FigureSpec("predicted_against_gold", "Predicted against gold", predictions.predicted_against_gold,
        "A point per row, of the first seed, at most 5,000; the dashed line is equality."),
    FigureSpec("confusion", "Confusion", predictions.confusion,
        "Rows are gold classes or tags, columns predicted ones, of the first seed; darker is a larger share of a row."),
    FigureSpec("confusions", "Confusion by variant", predictions.confusions,
        "As above, of the first seed of every variant; darker is a larger share of a row."),
    FigureSpec("by_class", "By class", partial(breakdown.group_bars, kind="class"),
        "Precision, recall and F1 of each class, with 95 % intervals over rows."),
    FigureSpec("by_label", "By label", partial(breakdown.group_bars, kind="label"),
        "Precision, recall and F1 of each label, with 95 % intervals over rows."),
    FigureSpec("by_entity_type", "By type", partial(breakdown.group_bars, kind="entity type"),
        "An entity is right if both its ends and its type are, as seqeval counts; intervals are over sentences."),
    FigureSpec("by_pattern", "By pattern", partial(breakdown.group_bars, kind="pattern"),
        "Each group of rows beside its complement: a group with a larger share of mistakes than of rows is hard."),
    FigureSpec("by_question_word", "By question word", partial(breakdown.group_bars, kind="question word"),
        "Exact match and F1 of the questions with each question word."),
    FigureSpec("layer_map", "Tasks by layer", subsets.layer_map,
        "A row per task, in its own metric and on its own scale; darker is nearer to the best value of the task."),
    FigureSpec("layer_curves", "By layer, with controls", subsets.layer_curves,
        "The probe trained again on subsets of the layers. Bands are 95 % intervals; controls are dashed; dotted "
        "across, all layers together."),
    FigureSpec("by_epoch", "By epoch", training.by_epoch,
        "Epoch 0 is before training. Lines are means over seeds; bands reach from the lowest seed to the highest."),
    FigureSpec("by_epoch_second", "By epoch, another metric", partial(training.by_epoch, rank=1),
        "Lines and bands as above."),
    FigureSpec("weights", "Weights", training.weights,
        "Weight of each task's loss by epoch, for the variants whose balancer changes it."),
    FigureSpec("conflicts", "Gradients", training.conflicts,
        "Cosine of two tasks' gradients with respect to their shared parameters. Below 0 the tasks conflict."),
    FigureSpec("training", "Training", training.training,
        "Lines are means over seeds; bands reach from the lowest seed to the highest. The epoch with the best metric "
        "is kept. Losses of several tasks are before any weight."),
    FigureSpec("autoencoder", "Autoencoder", training.autoencoder,
        "Means over seeds. A layer of large norm weighs more in a squared error."),
    FigureSpec("choices", "Views and backbones", subsets.choices,
        "The same probe on other latents; hollow points are controls."),
    FigureSpec("selectivity", "Selectivity", subsets.selectivity,
        "How much better the probe fits its training rows than the same rows with shuffled targets, which it can only"
        " memorise."),
    FigureSpec("history", "History", study.history,
        "A point per trial; the line is the best value so far, a cross is a trial that was pruned."),
    FigureSpec("intermediate", "While training", study.intermediate,
        "Values that trials reported at each step; dashed ones were pruned."),
    FigureSpec("importances", "Importance", study.importances,
        "How much of the spread of values each searched setting accounts for."),
    FigureSpec("unexplained", "Reconstruction and score", study.unexplained,
        "A better reconstruction (further left) need not mean a better score (further up)."),
    FigureSpec("loss", "Loss", training.loss_curve,
        "Loss of every step (pale) and its running mean; across, the loss on held-out text."),
)  # fmt: skip

FIGURES = {spec.name: spec for spec in SPECS}
"""Name -> figure."""

OF_TASKS = (
    "by_class", "by_label", "by_entity_type", "by_question_word", "by_pattern", "predicted_against_gold", "confusion",
    "confusions",
)  # fmt: skip
"""Figures that are drawn for each task of a run of several tasks."""


def draw(run: Tables, name: str, task: str = "", note: str = "") -> Picture | None:
    """Draw a figure; None if the run does not have its tables.

    Args:
        run: the tables, of the task if one is named.
        name: a key of ``FIGURES``.
        task: task of a multi-task run, which stands in the name and the title.
        note: further sentence of the caption.
    """
    spec = FIGURES.get(name)
    figure = spec.draw(run) if spec else None
    if spec is None or figure is None:
        return None
    title, caption = f"{task}: {spec.title}" if task else spec.title, f"{spec.caption} {note}".strip()
    return Picture(name=f"{task}-{name}" if task else name, title=title, caption=caption, figure=figure)


def figure_names(run: Tables) -> list[str]:
    """Return the names of all figures that the page of a run may have."""
    return [*FIGURES, *(f"{task}-{name}" for task in run.tasks for name in OF_TASKS)]

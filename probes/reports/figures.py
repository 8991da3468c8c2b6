"""Every figure of a page: its name, title and caption, and the function that draws it from the tables of a run."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from matplotlib.figure import Figure

from permafrost.probes.figures import evaluation, metrics, predictions, study, subsets, training
from permafrost.probes.figures.diagram import diagram
from permafrost.probes.reports.page import Picture
from permafrost.probes.results.run_tables import Tables


@dataclass(frozen=True)
class FigureSpec:
    """A figure of the page."""

    title: str
    draw: Callable[[Tables], Figure | None]
    """Draws it; None if the run does not have its tables."""

    caption: str


FIGURES = {
    "variants": FigureSpec("Variants", metrics.variants,
        "The selection metric, with 95 % intervals; the chosen variant is filled, the untrained reference "
        "grey. A variant without a point was not trained on that task."),
    "by_layer": FigureSpec("By layer", metrics.by_layer,
        "Cosine of raw latents, a line per view, with 95 % intervals; the line across is the chosen variant."),
    "diagram": FigureSpec("The probe", diagram,
        "From latents, a box per capture plan and view, to the prediction."),
    "predicted_against_gold": FigureSpec("Predicted against gold", predictions.predicted_against_gold,
        "A point per row, of the first seed, at most 5,000; the dashed line is equality."),
    "confusion": FigureSpec("Confusion", predictions.confusion,
        "Rows are gold classes or tags, columns predicted ones, of the first seed; darker is a larger share of a row."),
    "reliability": FigureSpec("Reliability", evaluation.reliability,
        "Of rows with similar probability, how many are right: 15 bins, the size of a point its rows. Below the dashed "
        "line probabilities are too high, above it too low."),
    "confusions": FigureSpec("Confusion by variant", predictions.confusions,
        "As above, of the first seed of every variant; darker is a larger share of a row."),
    "by_class": FigureSpec("By class", partial(predictions.group_bars, kind="class"),
        "Precision, recall and F1 of each class, with 95 % intervals over rows."),
    "by_label": FigureSpec("By label", partial(predictions.group_bars, kind="label"),
        "Precision, recall and F1 of each label, with 95 % intervals over rows."),
    "by_entity_type": FigureSpec("By type", partial(predictions.group_bars, kind="entity type"),
        "An entity is right if both its ends and its type are, as seqeval counts; intervals are over sentences."),
    "by_pattern": FigureSpec("By pattern", partial(predictions.group_bars, kind="pattern"),
        "Each group of rows beside its complement: a group with a larger share of mistakes than of rows is hard."),
    "by_question_word": FigureSpec("By question word", partial(predictions.group_bars, kind="question word"),
        "Metrics of the questions with each question word."),
    "transfer": FigureSpec("Transfer", evaluation.transfer,
        "Each run, by what it was trained on, against each data set; darker is better within a panel."),
    "layer_map": FigureSpec("Tasks by layer", subsets.layer_map,
        "A row per task, in its own metric and on its own scale; darker is nearer to the best value of the task."),
    "layer_curves": FigureSpec("By layer, with controls", subsets.layer_curves,
        "The probe trained again on subsets of the layers. Bands are 95 % intervals; controls are dashed; dotted "
        "across, all layers together."),
    "by_epoch": FigureSpec("By epoch", training.by_epoch,
        "Epoch 0 is before training. Lines are means over seeds; bands reach from the lowest seed to the highest."),
    "by_epoch_second": FigureSpec("By epoch, another metric", partial(training.by_epoch, rank=1),
        "Lines and bands as above."),
    "weights": FigureSpec("Weights", training.weights,
        "Weight of each task's loss by epoch, for the variants whose balancer changes it."),
    "conflicts": FigureSpec("Gradients", training.conflicts,
        "Cosine of two tasks' gradients with respect to their shared parameters. Below 0 the tasks conflict."),
    "training": FigureSpec("Training", training.training,
        "Lines are means over seeds; bands reach from the lowest seed to the highest. The epoch with the best metric "
        "is kept. Losses of several tasks are before any weight."),
    "autoencoder": FigureSpec("Autoencoder", training.autoencoder,
        "Means over seeds. A layer of large norm weighs more in a squared error."),
    "choices": FigureSpec("Views and backbones", subsets.choices,
        "The same probe on other latents; hollow points are controls."),
    "selectivity": FigureSpec("Selectivity", subsets.selectivity,
        "How much better the probe fits its training rows than the same rows with shuffled targets, which it can only"
        " memorise."),
    "history": FigureSpec("History", study.history,
        "A point per trial; the line is the best value so far, a cross is a trial that was pruned."),
    "intermediate": FigureSpec("While training", study.intermediate,
        "Values that trials reported at each step; dashed ones were pruned."),
    "importances": FigureSpec("Importance", study.importances,
        "How much of the spread of values each searched setting accounts for."),
    "unexplained": FigureSpec("Reconstruction and score", study.unexplained,
        "A better reconstruction (further left) need not mean a better score (further up)."),
    "loss": FigureSpec("Loss", training.loss_curve,
        "Loss of every step (pale) and its running mean; across, the loss on held-out text."),
}  # fmt: skip
"""Name of the files of a figure, and its place on the page -> the figure."""


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

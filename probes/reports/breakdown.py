"""Tables of a breakdown: metrics by class, label, entity type, pattern or question word, and by variant."""

from dataclasses import dataclass

from permafrost.probes.figures.metrics import sorted_by_variant
from permafrost.probes.figures.predictions import CLASS_METRICS, largest_groups, shown_metrics
from permafrost.probes.results.formatting import decimals
from permafrost.probes.results.grid import Grid, cell_text, pivot_lines, value_cell
from permafrost.probes.results.run_tables import Tables, reported_split
from permafrost.probes.tasks.registry import unit_of


@dataclass(frozen=True)
class GroupKind:
    """A kind of group that a breakdown may have."""

    head: str
    """Head of the column of groups; of classes it is their noun."""

    counted: str = "rows"
    """Head of the column of counts."""

    classes: str = ""
    """Plural of the noun; empty if the groups are no classes."""

    note: str = ""


GROUP_KINDS = {
    "class": GroupKind("class", classes="classes"),
    "label": GroupKind("label", classes="labels"),
    "entity type": GroupKind("type", "entities", classes="types"),
    "question word": GroupKind("asks", "questions", note="The first question word of a question; “other” has none."),
    "pattern": GroupKind(
        "rows with", note="Negation: not, n’t, no, never, nobody, nothing, none, neither, nor, without or cannot; of "
        "pairs, in the second text. Overlap of words is high if the first text has at least half of the second's.",
    ),
}  # fmt: skip
"""Kind of group -> what tables and sections say of it; its figure is ``by_<kind>``."""

MOST_LINES = 1000


def group_kinds(run: Tables) -> dict[str, GroupKind]:
    """Return the kinds of groups of a run, known ones first; any other has its name for a head, and no figure."""
    kinds = map(str, run["breakdown"]["kind"].unique())
    return GROUP_KINDS | {kind: GroupKind(cell_text(kind, 40)) for kind in kinds if kind not in GROUP_KINDS}


def breakdown_grids(run: Tables, kind: str) -> list[Grid]:
    """Return the tables of one kind of group: of the scored split first, then of the others, folded."""
    rows, about = run["breakdown"][run["breakdown"]["kind"] == kind], group_kinds(run)[kind]
    first = reported_split(rows)
    grids = []
    for split in sorted(dict.fromkeys(rows["split"]), key=lambda split: split != first)[:4]:
        split_rows = rows[rows["split"] == split]
        groups, metrics = largest_groups(split_rows), shown_metrics(split_rows)
        shown = split_rows[split_rows["group"].isin(groups)].assign(column=split_rows["metric"])
        left_out = split_rows["group"].nunique() - len(groups)
        more = f" {left_out:,} more groups are in breakdown.csv." if left_out else ""
        on = f"On {cell_text(split, 40)}"
        heads = (cell_text(metric.replace("_", " "), 40) for metric in metrics)
        grids.append(
            Grid(
                caption=f"{on}; in brackets the bootstrap 95 % interval over {unit_of(run.kind)}, "
                f"{run.seed_aggregation}.{more}",
                heads=[about.head, *heads, about.counted],
                rows=pivot_lines(shown, ["group"], metrics, closing=["n"]),
                fold=on if split != first else "",
            )
        )
    return grids


def calibration_grid(run: Tables) -> Grid | None:
    """Return log loss and calibration error of the probabilities, before and after calibration; None without them."""
    rows = run["calibration"].dropna(subset=["value"])
    if rows.empty:
        return None
    metrics = list(dict.fromkeys(rows["metric"]))
    split, temperatures = cell_text(rows["split"].iloc[0], 40), rows.drop_duplicates("stage").set_index("stage")
    shown = rows.assign(column=rows["metric"])
    lines = [
        [*line, decimals(temperatures.loc[stage, "temperature"], 3)]
        for line, stage in zip(
            pivot_lines(shown, ["stage"], metrics, lambda row: value_cell(row, 4)), temperatures.index, strict=True
        )
    ]
    heads = (cell_text("ECE" if metric == "ece" else metric.replace("_", " "), 40) for metric in metrics)
    return Grid(
        caption=f"Probabilities on {split}: log loss in nats, and expected calibration error (ECE) over 15 bins; in "
        "brackets the bootstrap 95 % interval. The temperature divides the logits; it was fitted on the rows that "
        "select epochs, and is 1 if it lowers their log loss by no more than chance.",
        heads=["probabilities", *heads, "temperature"],
        rows=lines,
    )


def variant_grids(run: Tables, task: str) -> list[Grid]:
    """Return a table of means over classes with a line per variant, and a folded one with a line per variant and class.

    Empty if the task has no classes, or the run one variant.
    """
    rows = run.tasks[task]["breakdown"]
    of_classes = [kind for kind, about in GROUP_KINDS.items() if about.classes]
    rows = rows[rows["kind"].isin(of_classes) & rows["metric"].isin(list(CLASS_METRICS))]
    rows = rows[rows["split"] == reported_split(rows)].assign(column=rows["metric"])
    rows = sorted_by_variant(run, rows)
    names = list(dict.fromkeys(rows["variant"]))
    if len(names) < 2:
        return []
    split, about = cell_text(rows["split"].iloc[0], 40), GROUP_KINDS[rows["kind"].iloc[0]]
    means = rows.groupby(["variant", "column"], sort=False)["value"].mean().reset_index()
    lines = pivot_lines(rows, ["variant", "group"], list(CLASS_METRICS), closing=["n"])
    return [
        Grid(
            caption=f"On {split}, {run.seed_aggregation}: means over {about.classes}, each of which counts the same.",
            heads=["variant", *(f"macro {name}" for name in CLASS_METRICS.values())],
            rows=pivot_lines(means, ["variant"], list(CLASS_METRICS), lambda row: decimals(row["value"], 3)),
            strong=names.index(run.selected) if run.selected in names else None,
        ),
        Grid(
            caption=f"On {split}; in brackets the bootstrap 95 % interval over rows.",
            heads=["variant", about.head, *CLASS_METRICS.values(), "n"],
            rows=lines[:MOST_LINES],
            text_columns=2,
            fold=f"By variant and {about.head}, {len(lines):,} lines",
        ),
    ]

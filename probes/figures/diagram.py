"""Diagram of the chosen probe: its stages as boxes with sizes, drawn from the record of the run."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from permafrost.probes.figures.style import COLOURS, short_name
from permafrost.probes.results.files import number
from permafrost.probes.results.run_tables import Tables

WIDTH, HEIGHT, GAP = 1.9, 1.15, 0.75
"""Of a box and between boxes, in units of the axes."""

MOST_INPUTS = 4
"""Boxes of inputs; of more inputs the last box says how many there are."""

ENCODERS = {
    "none": "no encoder",
    "linear": "linear encoder",
    "lowrank": "low-rank encoder",
    "mlp": "MLP encoder",
}

MIXERS = {
    "last": "last layer alone",
    "softmax": "learned weighted\nmean of layers",
    "mlp": "small network\nover the layers",
}

CODE_MIXERS = {
    "concat": "layers\nside by side",
    "attention": "attention\nover layers",
    "self_attention": "self-attention\nof the codes",
    "unified": "one unified\nembedding",
}
"""Mixers that combine the codes of the layers; the others combine one cosine per layer."""

CONTEXTS = {"bilstm": "BiLSTM\nover the text", "transformer": "transformer\nover the text"}

HEADS = {
    "cosine": ("", "score"),
    "regression": ("regression head", "score"),
    "classes": ("class head", "class"),
    "tags": ("tag head,\nfirst token\nof a word", "tags, as IOB2\nallows"),
    "span": ("start and end\nof an answer,\nover windows", "answer"),
}
"""Head -> the text of its box, empty for none, and its output."""


def diagram(run: Tables) -> Figure | None:
    """Draw the chosen probe, from latents to prediction; None if the record does not describe it."""
    probe = run.record_table("probes", run.selected)
    if not probe:
        return None
    sources, stages = _source_boxes(probe), _stage_boxes(probe, run)
    across = (len(stages) + 1) * (WIDTH + GAP)
    down = max(len(sources) * (HEIGHT + 0.3), HEIGHT + 0.3)
    figure = Figure(figsize=(across * 0.78, down * 0.78 + 0.75), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(-0.1, across - GAP + 0.1), ylim=(-down / 2 - 0.05, down / 2 + 0.05), aspect="equal")
    axes.set_axis_off()
    parameters, backbone = number(probe.get("parameters")), number(probe.get("backbone_parameters"))
    share = f", {100 * parameters / backbone:.2g} % of the backbone" if parameters and backbone else ""
    size = f": {parameters:,.0f} parameters{share}" if parameters is not None else ""
    axes.set_title(f"{short_name(run.selected)}{size}")
    for index, text in enumerate(sources):
        y = (len(sources) / 2 - index - 0.5) * (HEIGHT + 0.3)
        _box(axes, 0, y, text, COLOURS[0])
        _arrow(axes, (WIDTH, y), (WIDTH + GAP, 0), "")
    for index, (text, shape) in enumerate(stages, 1):
        x = index * (WIDTH + GAP)
        last = index == len(stages)
        _box(axes, x, 0, text, COLOURS[2] if last else COLOURS[4] if index == 1 else None)
        if not last:
            _arrow(axes, (x + WIDTH, 0), (x + WIDTH + GAP, 0), shape)
    return figure


def _source_boxes(probe: Mapping[str, Any]) -> list[str]:
    """The text of each box of latents: plan and view, number of layers, width."""
    listed = probe.get("inputs")
    inputs = [entry for entry in listed if isinstance(entry, Mapping)] if isinstance(listed, list) else []
    texts = []
    for entry in inputs[:MOST_INPUTS]:
        name = ", ".join(short_name(entry[key], 18) for key in ("plan", "view") if entry.get(key))
        layers, width = entry.get("layers"), number(entry.get("width"))
        size = f"{len(layers)} layers" if isinstance(layers, list) and len(layers) != 1 else "1 layer"
        texts.append(f"latents\n{name}\n{size}" + (f" × {width:.0f}" if width else ""))
    if len(inputs) > MOST_INPUTS:
        texts[-1] = f"latents\nof {len(inputs) - MOST_INPUTS + 1} more\ninputs"
    return texts or ["latents"]


def _stage_boxes(probe: Mapping[str, Any], run: Tables) -> list[tuple[str, str]]:
    """The text of each box after the latents, and the shape on the arrow that leaves it."""
    codes, mixer = probe.get("codes"), str(probe.get("mixer", ""))
    widths = [int(width) for width in map(number, codes) if width] if isinstance(codes, list) else []
    ends = sorted({min(widths), max(widths)}) if widths else []
    extent = f"\n{len(widths)} × {'–'.join(map(str, ends))}" if widths else ""
    stages = [(_encoder_text(probe), ""), (f"code{extent}", "")]
    mixing = (CODE_MIXERS.get(mixer) or MIXERS.get(mixer, short_name(mixer, 18)) or "mixer", "")
    head, pairs = _head(probe, run)
    if head == "cosine" and mixer in CODE_MIXERS:
        stages += [mixing, ("cosine of the\ntwo sides", "")]
    elif head == "cosine":
        stages += [("cosine of the\ntwo sides,\nby layer", f"{len(widths)}" if widths else ""), mixing]
    else:
        stages.append(mixing)
    context = str(probe.get("context") or "none")
    if context != "none":
        stages.append((CONTEXTS.get(context, short_name(context, 18)), ""))
    head_text, output = HEADS.get(head, (short_name(head, 18), "prediction"))
    if head_text:
        hidden = number(probe.get("hidden"))
        size = f"\n{hidden:.0f} hidden" if hidden else ""
        stages.append((head_text + size + ("\non a, b, |a−b|, a·b" if pairs else ""), ""))
    loss = f"\nloss: {short_name(probe['loss'], 16)}" if probe.get("loss") else ""
    return [*stages, (output + loss, "")]


def _encoder_text(probe: Mapping[str, Any]) -> str:
    encoder, depth = str(probe.get("encoder", "")), number(probe.get("depth"))
    pretraining = short_name(probe["pretraining"], 14) if probe.get("pretraining") else ""
    lines = [
        ENCODERS.get(encoder, short_name(encoder, 18)),
        f"depth {depth:.0f}" if depth and encoder == "mlp" else "",
        f"begun as\n{pretraining}" if pretraining else "",
    ]
    return "\n".join(filter(None, lines)) or "encoder"


def _head(probe: Mapping[str, Any], run: Tables) -> tuple[str, bool]:
    """The name of the head, and whether it reads two texts; inferred from the predictions if the record lacks them."""
    sides = number(probe.get("sides"))
    pairs = sides == 2 if sides is not None else bool({"sentence1", "passage"} & set(run["predictions"]))
    inferred = {"score": "cosine" if pairs else "regression", "class": "classes", "tags": "tags", "answers": "span"}
    return str(probe.get("head") or inferred.get(run.kind, "cosine")), pairs


def _box(axes: Axes, x: float, y: float, text: str, colour: str | None) -> None:
    area: dict[str, Any] = {"facecolor": colour, "edgecolor": "none", "alpha": 0.18}
    outline: dict[str, Any] = {"facecolor": "none", "edgecolor": colour or "black", "linewidth": 1.4 if colour else 1}
    corner, style = (x + 0.06, y - HEIGHT / 2 + 0.06), "round,pad=0.05,rounding_size=0.12"
    for look in [area, outline] if colour else [outline]:
        axes.add_patch(FancyBboxPatch(corner, WIDTH - 0.12, HEIGHT - 0.12, boxstyle=style, **look))
    axes.text(x + WIDTH / 2, y, text, ha="center", va="center", fontsize=9.5, linespacing=1.35)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], shape: str) -> None:
    look = {"arrowstyle": "-|>", "color": "black", "linewidth": 1, "shrinkA": 2, "shrinkB": 2}
    axes.annotate("", end, start, arrowprops=look)
    if shape:
        middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.14)
        axes.text(*middle, shape, ha="center", va="bottom", fontsize=8)

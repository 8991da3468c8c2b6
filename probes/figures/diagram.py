"""The probe as boxes, drawn from what the record says of it: shapes on the arrows, parameters in the caption."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from permafrost.probes.figures.style import COLOURS, caption
from permafrost.probes.results.files import number
from permafrost.probes.results.run_tables import Tables

WIDTH, HEIGHT, GAP = 1.9, 1.15, 0.75

MOST_INPUTS = 4

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
"""These meet before there is a cosine."""

CONTEXTS = {"bilstm": "BiLSTM\nover the text", "transformer": "transformer\nover the text"}

HEADS = {
    "cosine": ("", "score"),
    "regression": ("regression head", "score"),
    "classes": ("class head", "class"),
    "tags": ("tag head,\nfirst token\nof a word", "tags, as IOB2\nallows"),
    "span": ("start and end\nof an answer,\nover windows", "answer"),
}
"""Head -> what it does and what comes out."""


def diagram(run: Tables) -> Figure | None:
    """The chosen probe, from latents to score; None where the record does not describe it."""
    told = run.record_table("probes", run.selected)
    if not told:
        return None
    sources, stages = _sources(told), _stages(told, run)
    across = (len(stages) + 1) * (WIDTH + GAP)
    down = max(len(sources) * (HEIGHT + 0.3), HEIGHT + 0.3)
    figure = Figure(figsize=(across * 0.78, down * 0.78 + 0.75), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(-0.1, across - GAP + 0.1), ylim=(-down / 2 - 0.05, down / 2 + 0.05), aspect="equal")
    axes.set_axis_off()
    axes.set_title(_title(told, run.selected))
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


def _title(told: Mapping[str, Any], name: str) -> str:
    own, backbone = number(told.get("parameters")), number(told.get("backbone_parameters"))
    share = f", {100 * own / backbone:.2g} % of the backbone" if own and backbone else ""
    size = f": {own:,.0f} parameters{share}" if own is not None else ""
    return f"{caption(name)}{size}"


def _sources(told: Mapping[str, Any]) -> list[str]:
    given = told.get("inputs")
    inputs = [one for one in given if isinstance(one, Mapping)] if isinstance(given, list) else []
    texts = []
    for one in inputs[:MOST_INPUTS]:
        name = ", ".join(caption(one[key], 18) for key in ("plan", "view") if one.get(key))
        layers, width = one.get("layers"), number(one.get("width"))
        size = f"{len(layers)} layers" if isinstance(layers, list) and len(layers) != 1 else "1 layer"
        texts.append(f"latents\n{name}\n{size}" + (f" × {width:.0f}" if width else ""))
    if len(inputs) > MOST_INPUTS:
        texts[-1] = f"latents\nof {len(inputs) - MOST_INPUTS + 1} more\ninputs"
    return texts or ["latents"]


def _stages(told: Mapping[str, Any], run: Tables) -> list[tuple[str, str]]:
    """What each box after the latents says, and the shape on the arrow from it."""
    codes = told.get("codes")
    widths = [int(width) for width in map(number, codes) if width] if isinstance(codes, list) else []
    encoder, mixer, depth = str(told.get("encoder", "")), str(told.get("mixer", "")), number(told.get("depth"))
    pretraining = caption(told["pretraining"], 14) if told.get("pretraining") else ""
    lines = [ENCODERS.get(encoder, caption(encoder, 18)), f"depth {depth:.0f}" if depth and encoder == "mlp" else ""]
    lines.append(f"begun as\n{pretraining}" if pretraining else "")
    layers = f"{len(widths)} × " if widths else ""
    stages = [("\n".join(filter(None, lines)) or "encoder", ""), (f"code\n{layers}{_span(widths)}".strip(), "")]
    meeting = (CODE_MIXERS.get(mixer) or MIXERS.get(mixer, caption(mixer, 18)) or "mixer", "")
    head, pairs = _head(told, run)
    if head == "cosine" and mixer in CODE_MIXERS:
        stages += [meeting, ("cosine of the\ntwo sides", "")]
    elif head == "cosine":
        stages += [("cosine of the\ntwo sides,\nby layer", f"{len(widths)}" if widths else ""), meeting]
    else:
        stages.append(meeting)
    context = str(told.get("context") or "none")
    if context != "none":
        stages.append((CONTEXTS.get(context, caption(context, 18)), ""))
    does, said = HEADS.get(head, (caption(head, 18), "prediction"))
    if does:
        hidden = number(told.get("hidden"))
        size = f"\n{hidden:.0f} hidden" if hidden else ""
        stages.append((does + size + ("\non a, b, |a−b|, a·b" if pairs else ""), ""))
    loss = f"\nloss: {caption(told['loss'], 16)}" if told.get("loss") else ""
    return [*stages, (said + loss, "")]


def _head(told: Mapping[str, Any], run: Tables) -> tuple[str, bool]:
    """The head's name, and whether it reads two texts; of a record that does not say, what the predictions show."""
    sides = number(told.get("sides"))
    pairs = sides == 2 if sides is not None else "sentence1" in run.predictions
    shown = {"score": "cosine" if pairs else "regression", "class": "classes", "tags": "tags", "answers": "span"}
    return str(told.get("head") or shown.get(run.kind, "cosine")), pairs


def _span(widths: Sequence[int]) -> str:
    if not widths:
        return ""
    return f"{widths[0]}" if min(widths) == max(widths) else f"{min(widths)}–{max(widths)}"


def _box(axes: Axes, x: float, y: float, text: str, colour: str | None) -> None:
    patch = FancyBboxPatch(
        (x + 0.06, y - HEIGHT / 2 + 0.06), WIDTH - 0.12, HEIGHT - 0.12, boxstyle="round,pad=0.05,rounding_size=0.12",
        facecolor=colour or "none", alpha=0.18 if colour else 1, edgecolor="none" if colour else "black", linewidth=1,
    )  # fmt: skip
    axes.add_patch(patch)
    if colour:
        outline = FancyBboxPatch(
            (x + 0.06, y - HEIGHT / 2 + 0.06), WIDTH - 0.12, HEIGHT - 0.12,
            boxstyle="round,pad=0.05,rounding_size=0.12", facecolor="none", edgecolor=colour, linewidth=1.4,
        )  # fmt: skip
        axes.add_patch(outline)
    axes.text(x + WIDTH / 2, y, text, ha="center", va="center", fontsize=9.5, linespacing=1.35)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], shape: str) -> None:
    look = {"arrowstyle": "-|>", "color": "black", "linewidth": 1, "shrinkA": 2, "shrinkB": 2}
    axes.annotate("", end, start, arrowprops=look)
    if shape:
        middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.14)
        axes.text(*middle, shape, ha="center", va="bottom", fontsize=8)

"""Settings of ``[probe]``: the inputs of a probe, its encoder, layer mixer and head."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from permafrost.data.plan.layers import check_layers
from permafrost.data.plugin_registry import is_known, unknown_name
from permafrost.data.plugins import Head
from permafrost.data.spec import SpecError


@dataclass(frozen=True, kw_only=True)
class ProbeSpec:
    """The probe that is trained on the latents: inputs, scaling, encoder, mixer and head."""

    inputs: tuple[str, ...] = ()
    """Views the probe reads, each as [PLAN/]VIEW[:LAYERS], e.g. mean, cls:-4..-1 or echo/mean:6. LAYERS is a layer or a
    range, PLAN the name of a table [plans.PLAN]. Empty reads every view of [plan]. The view tokens cannot be combined
    with others; tags and answers are predicted from each token, other targets from tokens pooled by attention."""

    layers: tuple[int, ...] | str = "all"
    """Layers to read of inputs that name none: "all" that the plan keeps, a list, or a range such as "1..-1"."""

    center: bool = True
    """Whether to subtract from each layer its mean over the training texts."""

    scale: Literal["layer", "dimension"] = "layer"
    """Divisor of the latents: their standard deviation over the training texts, one per layer ("layer") or one per
    dimension of a layer ("dimension")."""

    noise: float = 0.0
    """Standard deviation of Gaussian noise added to the scaled latents in training; 0 adds none."""

    encoder: Literal["none", "linear", "lowrank", "mlp"] = "linear"
    """Projection of each layer's latents to its code, shared by both texts of a pair; "none" keeps the latents."""

    start: Literal["identity", "random"] = "identity"
    """Initial weights of linear projections; with "identity", training starts from the cosine of the raw latents."""

    rank: int = 16
    """Rank of the "lowrank" encoder's update to the identity; the update starts at zero, so training starts from the
    cosine of the raw latents."""

    code: tuple[float, ...] = (1.0,)
    """Width of the codes as a fraction of the latents' width, in (0, 1]: one for all layers, or several, each for an
    equal part of a view's layers from the lowest up; [0.25, 0.5] sets 1/4 in the lower half and 1/2 in the upper."""

    depth: int = 2
    """Number of linear layers of the "mlp" encoder, with GELU between them."""

    norm: bool = False
    """Whether the "mlp" encoder starts with a layer norm."""

    dropout: float = 0.0
    """Dropout probability in [0, 1): on what every encoder reads, between the layers of the "mlp" encoder, in the
    context and the head."""

    mixer: Literal["last", "softmax", "mlp", "concat", "attention", "self_attention", "unified"] = "softmax"
    """How the layers are combined. With the head "cosine", the mixers "last" (last layer only), "softmax" (learned
    weighted mean) and "mlp" (small network) combine the layers' cosines. In all other cases the layers' codes are
    combined, by "last", "softmax", "concat", "attention", "self_attention" or "unified" (one embedding of all
    layers)."""

    head: str = "auto"
    """Prediction from the combined layers: the "cosine" of two texts; a score ("regression"), one of several "classes"
    or any number of "labels", from the features of one or two texts; "tags", one per word; the "span" of an answer.
    "auto" selects by the corpus's targets. A head of your own goes by its name; of two texts, it reads the features of
    product."""

    head_options: dict[str, object] = field(default_factory=dict)
    """Arguments of a head of your own, by name, e.g. {width = 64}."""

    hidden: int = 0
    """Width of the hidden layer of the heads "classes", "labels" and "regression"; 0 makes them linear. A head of your
    own has its sizes in head_options."""

    activation: Literal["gelu", "relu"] = "gelu"
    """Activation of a head's hidden layer."""

    product: bool = True
    """Whether the features of two texts u and v are [u, v, |u - v|, u * v]; false leaves u * v out."""

    match: bool = False
    """Whether the head "span" gets, for every token and layer, the token's highest cosine with any token of the other
    segment (question or context) as an additional feature."""

    context: Literal["none", "bilstm", "transformer"] = "none"
    """Network over the tokens of a text before the heads "tags" and "span"; "none" uses the tokens as they are."""

    context_width: int = 256
    """Width of the context network: of each direction of the "bilstm", or of the blocks of the "transformer"."""

    context_blocks: int = 2
    """Number of blocks of the "transformer" context."""

    def __post_init__(self) -> None:
        check_layers(self.layers)
        if self.head not in Head.built_in and not is_known(Head, self.head):
            raise SpecError(f"head = '{self.head}': {unknown_name(Head, self.head)}")
        if self.head in Head.built_in and self.head_options:
            raise SpecError(f"head_options are for a head of your own, and head = '{self.head}'; leave them out.")
        if not self.code or not all(0 < fraction <= 1 for fraction in self.code):
            raise SpecError(f"code must be one or more fractions in (0, 1], got {list(self.code)}.")
        if self.encoder in ("none", "lowrank") and self.code != (1.0,):
            raise SpecError(
                f"code = {list(self.code)} needs the encoder linear or mlp; {self.encoder} keeps the width."
            )
        if not 0 <= self.dropout < 1:
            raise SpecError(f"dropout must be in [0, 1), got {self.dropout}.")
        if self.hidden < 0 or not self.noise >= 0:
            raise SpecError(f"hidden and noise must not be negative, got {self.hidden} and {self.noise}.")
        for name in ("depth", "rank", "context_width", "context_blocks"):
            if getattr(self, name) < 1:
                raise SpecError(f"{name} must be at least 1, got {getattr(self, name)}.")

    def code_widths(self, widths: Sequence[int], inputs: Sequence[Hashable] = ()) -> list[int]:
        """Return the width of each layer's code.

        Args:
            widths: ``[layer]``, widths of the latents.
            inputs: ``[layer]``, plan and view of each layer; the fractions of ``code`` divide the layers of each input
                separately. Empty treats all layers as one input.

        Returns:
            ``[layer]``, each at least 1.

        Raises:
            SpecError: ``code`` has more fractions than an input has layers.
        """
        code_widths = [0] * len(widths)
        groups = inputs or [""] * len(widths)
        for group in dict.fromkeys(groups):
            positions = [position for position, other in enumerate(groups) if other == group]
            if len(self.code) > len(positions):
                raise SpecError(
                    f"probe.code names {len(self.code)} fractions, but the probe reads {len(positions)} layers."
                )
            bounds = [round(index * len(positions) / len(self.code)) for index in range(len(self.code) + 1)]
            for fraction, (low, high) in zip(self.code, pairwise(bounds), strict=True):
                for position in positions[low:high]:
                    code_widths[position] = max(1, round(fraction * widths[position]))
        return code_widths

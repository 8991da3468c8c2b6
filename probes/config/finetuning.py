"""Settings of ``[finetune]``: partial fine-tuning of the backbone's top blocks together with the probe."""

from dataclasses import dataclass, replace
from typing import Literal

from permafrost.data.plan.layers import check_layers, resolve_layers
from permafrost.data.plan.plan import CapturePlan
from permafrost.data.spec import SpecError


@dataclass(frozen=True)
class FinetuneSpec:
    """Which blocks of the backbone are fine-tuned, and their dropout."""

    cut: int | Literal["frozen", "none"] = "frozen"
    """Last frozen layer, whose hidden states are cached; the blocks above it are trained together with the probe. 0
    freezes the embeddings only. "frozen" trains no block: the probe reads cached views. "none" freezes nothing: the
    whole backbone is trained, starting from the text."""

    frozen_layers: tuple[int, ...] | str = ()
    """Layers at or below the cut that the probe reads from the cache, in addition to the trained layers: a list, a
    range such as "0..2", or "all"; -1 is the cut. Empty reads none. probe.layers selects the layers above the cut."""

    dropout: float = 0.1
    """Dropout probability on the hidden states of the trained blocks, in [0, 1); for attention see
    attention_dropout."""

    attention_dropout: float = 0.0
    """Dropout probability on the attention weights of the trained blocks, in [0, 1); above 0 it slows steps on a
    CPU."""

    def __post_init__(self) -> None:
        if isinstance(self.cut, int) and self.cut < 0:
            raise SpecError(f'cut must be a layer from 0, "frozen" or "none", got {self.cut}.')
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise SpecError(f"{name} must be in [0, 1), got {getattr(self, name)}.")
        if self.frozen_layers and isinstance(self.cut, str):
            raise SpecError(
                f'frozen_layers names layers that are cached below a cut, and cut = "{self.cut}" caches none; set cut '
                "to a layer, or leave frozen_layers out."
            )
        self.frozen_layer_indices()

    def frozen_layer_indices(self) -> tuple[int, ...]:
        """Return the layers of ``frozen_layers``, ascending.

        Raises:
            SpecError: a layer is above the cut, or the setting is no list or range of layers.
        """
        if not isinstance(self.cut, int) or not self.frozen_layers:
            return ()
        try:
            check_layers(self.frozen_layers)
            return resolve_layers(self.frozen_layers, range(self.cut + 1))
        except SpecError as error:
            raise SpecError(f"frozen_layers names layers at or below the cut, {self.cut}: {error}") from None

    @property
    def trains_backbone(self) -> bool:
        """Whether any block of the backbone is trained."""
        return self.cut != "frozen"

    def cached_plan(self, plan: CapturePlan) -> CapturePlan | None:
        """Return the capture plan of the frozen states to cache; None if ``cut`` is no layer."""
        if isinstance(self.cut, str):
            return None
        return replace(plan, views=("tokens",), layers=tuple(sorted({*self.frozen_layer_indices(), self.cut})))

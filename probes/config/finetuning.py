"""Settings of ``[finetune]``: which blocks of the backbone are trained with the probe."""

from dataclasses import dataclass, replace
from typing import Literal

from permafrost.data.spec import SpecError
from permafrost.data.store.layers import check_layers, resolve_layers
from permafrost.data.store.plan import CapturePlan


@dataclass(frozen=True)
class FinetuneSpec:
    """Which blocks of the backbone learn."""

    cut: int | Literal["frozen", "none"] = "frozen"
    """The last layer whose states are frozen and cached; the blocks above it learn with the probe. 0 freezes the
    embeddings alone. frozen: nothing learns, the probe reads cached views. none: all of it learns, from text."""

    frozen_layers: tuple[int, ...] | str = ()
    """Layers at or below the cut that the probe reads beside those that learn, from the cache: a list, a range such as
    "0..2", or all; -1 is the cut. probe.layers names those above it."""

    dropout: float = 0.1
    """In the blocks that learn, on hidden states; and on attention where attention_dropout says so."""

    attention_dropout: float = 0.0
    """In the blocks that learn, on attention: on a CPU it makes a step slower."""

    def __post_init__(self) -> None:
        if isinstance(self.cut, int) and self.cut < 0:
            raise SpecError(f'cut must be a layer from 0, "frozen" or "none", got {self.cut}.')
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise SpecError(f"{name} must be in [0, 1), got {getattr(self, name)}.")
        if self.frozen_layers and isinstance(self.cut, str):
            raise SpecError(
                f'frozen_layers names layers that are cached below a cut, and cut = "{self.cut}" caches none; set cut to a '
                "layer, or leave frozen_layers out."
            )
        self.frozen_layer_indices()

    def frozen_layer_indices(self) -> tuple[int, ...]:
        """The layers of ``frozen_layers``, ascending."""
        if not isinstance(self.cut, int) or not self.frozen_layers:
            return ()
        try:
            check_layers(self.frozen_layers)
            return resolve_layers(self.frozen_layers, range(self.cut + 1))
        except SpecError as error:
            raise SpecError(f"frozen_layers names layers at or below the cut, {self.cut}: {error}") from None

    @property
    def learns(self) -> bool:
        """Whether any block does."""
        return self.cut != "frozen"

    def below(self, plan: CapturePlan) -> CapturePlan | None:
        """What is to be cached for the blocks and beside them; None where they begin at the text."""
        if isinstance(self.cut, str):
            return None
        return replace(plan, views=("tokens",), layers=tuple(sorted({*self.frozen_layer_indices(), self.cut})))

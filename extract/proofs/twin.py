"""Float64 models for the structure proof: a small twin of a backbone, or a copy of it.

The twin has the classes and the configuration of the backbone, except few blocks, short windows, a small vocabulary,
narrow feed-forward layers, fewer heads and narrow states if the backbone is large, and random weights
(:mod:`permafrost.extract.architecture.small_model`). A forward pass that treats masks, positions, padding or layers
wrongly does so on the twin too.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from permafrost.extract.architecture.lookup import architecture_of
from permafrost.extract.architecture.small_model import resized, small_model, small_values
from permafrost.extract.backbones.load import Backbone
from permafrost.extract.backbones.locate import Source


class Float64(TorchFunctionMode):
    """Torch function mode that replaces float32 by float64 in a model's code: in norms, softmax and rotary tables.

    Tensors that are made without a dtype are in float64 too.
    """

    def __enter__(self) -> Any:
        """Make float64 the default."""
        self._default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        """Restore the default."""
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        torch.set_default_dtype(self._default)

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call ``function`` with float64 in place of float32."""
        if function is Tensor.float:
            function = Tensor.double
        arguments = (torch.float64 if value is torch.float32 else value for value in args)
        keywords = {name: torch.float64 if value is torch.float32 else value for name, value in (kwargs or {}).items()}
        return function(*arguments, **keywords)


def make_twin(backbone: Backbone, config: Mapping[str, Any] | None = None) -> Backbone:
    """Return a float64 twin with random weights, on the backbone's device if that has float64, else on the CPU.

    Args:
        config: of another backbone, whose twin is made in its place.
    """
    origin = config or backbone.source.config
    values = small_values(origin)
    architecture = resized(architecture_of(config) if config else backbone.source.architecture, origin, values)
    model = small_model(values).get_submodule(architecture.tower)
    return _in_float64(backbone, replace(backbone.source, folder=None, config=values, architecture=architecture), model)


def make_copy(backbone: Backbone) -> Backbone:
    """Return a copy of the backbone in float64."""
    model = copy.deepcopy(backbone.model)
    if hasattr(model, "config"):
        model.config._experts_implementation = "eager"  # others have no float64
    return _in_float64(backbone, backbone.source, model)


def _in_float64(backbone: Backbone, source: Source, model: Any) -> Backbone:
    device = backbone.device if backbone.device.type in ("cpu", "cuda") else torch.device("cpu")
    model = model.requires_grad_(False).eval().to(device=device, dtype=torch.float64)
    return Backbone(source=source, model=model, tokenizer=backbone.tokenizer, dtype=torch.float64, device=device)

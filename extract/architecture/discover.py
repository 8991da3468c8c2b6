"""Discovery of a model's architecture: a small model of the same configuration is run, and watched.

A block is a call: of a module of a class that transformers records hidden states of, else of a class that supports
gradient checkpointing, else of a class of the list that has an entry for every block. Layer ``k`` is what enters call
``k + 1``, in the order of calls; the last layer is what leaves the last call.
"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from permafrost.extract.architecture.architecture import Architecture
from permafrost.extract.architecture.configuration import BackboneError

LONG = 11
"""Tokens of the texts that are run: an odd number, so that a model that pads texts to whole blocks is seen to."""

SAME = 1e-4
"""Largest difference of equal states in float32, as a share of the largest value; experts add in another order."""


@dataclass
class Watch:
    """What the blocks of one forward pass were given and returned."""

    entering: list[Tensor] = field(default_factory=list)
    """``[call]``: hidden states that a block was given."""

    leaving: list[Tensor] = field(default_factory=list)
    """``[call]``: hidden states that a block returned."""

    afterwards: list[tuple[str, Any]] = field(default_factory=list)
    """Path and output of each module without children that was called after the last block."""


def text_tower(model: nn.Module) -> tuple[str, nn.Module]:
    """Return path and module of the part that turns token ids into hidden states; of a seq2seq model, its encoder.

    Raises:
        BackboneError: no part of the model takes token ids.
    """
    config: Any = model.config
    names: tuple[str, ...] = ()
    if getattr(config, "is_encoder_decoder", False) or {"encoder", "decoder"} <= {
        name for name, _ in model.named_children()
    }:
        names = ("get_encoder",)  # a checkpoint of the encoder alone does not say that its kind has both
    elif config.get_text_config() is not config:
        names = ("get_decoder", "get_encoder", "language_model", "text_model")
    for part in (*(_part(model, name) for name in names), model):
        if part is not None and "input_ids" in inspect.signature(part.forward).parameters:
            return next(path for path, module in model.named_modules() if module is part), part
    raise BackboneError("no part of it takes token ids, so it is no model of text")


def text_config(model: nn.Module, tower: nn.Module) -> Any:
    """Return the configuration of the part of a model that reads texts; some parts have none of their own."""
    config: Any = getattr(tower, "config", model.config)
    return config.get_text_config()


def _part(model: nn.Module, name: str) -> nn.Module | None:
    try:
        part = getattr(model, name)
        part = part if isinstance(part, nn.Module) else part()
    except Exception:  # a model may lack it, or have the method and no such part
        return None
    return part if isinstance(part, nn.Module) and part is not model else None


def blocks_of(tower: nn.Module, classes: tuple[str, ...]) -> list[nn.Module]:
    """Return the modules of some classes that lie in no other module of these classes."""
    blocks: list[nn.Module] = []
    inside: set[nn.Module] = set()
    for module in tower.modules():  # a module comes before those in it
        if type(module).__name__ in classes and module not in inside:
            blocks.append(module)
            inside.update(module.modules())
    return blocks


def hidden_states(values: Any) -> Tensor:
    """Return the hidden states among the arguments or results of a block: the first tensor of numbers.

    Raises:
        BackboneError: there is none.
    """
    if isinstance(values, Tensor) and values.is_floating_point() and values.dim() > 1:
        return values
    if isinstance(values, dict):
        values = [values[key] for key in sorted(values, key=lambda key: key != "hidden_states")]
    for value in values if isinstance(values, list | tuple) else ():
        with suppress(BackboneError):
            return hidden_states(value)
    raise BackboneError("no hidden states enter or leave its blocks")


@contextmanager
def watched(tower: nn.Module, classes: tuple[str, ...]) -> Iterator[Watch]:
    """Watch the calls of the tower's blocks."""
    watch, blocks = Watch(), blocks_of(tower, classes)
    inside = {module for block in blocks for module in block.modules()}
    handles = []

    def enter(block: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        watch.entering.append(hidden_states([*positional, named]))

    def leave(block: nn.Module, arguments: Any, output: Any) -> None:
        watch.leaving.append(hidden_states(output))
        watch.afterwards.clear()

    for block in blocks:
        handles += [block.register_forward_pre_hook(enter, with_kwargs=True), block.register_forward_hook(leave)]
    for path, module in tower.named_modules():
        if module not in inside and next(module.children(), None) is None:
            handles.append(
                module.register_forward_hook(lambda _, __, output, path=path: watch.afterwards.append((path, output)))
            )
    try:
        yield watch
    finally:
        for handle in handles:
            handle.remove()


class PositionTables(TorchFunctionMode):
    """Records the sizes of tables that are looked up by position: a consecutive number for each of the tokens."""

    def __init__(self, tokens: int) -> None:
        """Record nothing yet; ``tokens`` is the length of the texts that will be run."""
        super().__init__()
        self._tokens = tokens
        self.longest: int | None = None
        """Longest text that all tables have rows for; None if there is no table."""

        self.first = 0
        """Position of the first token."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call ``function``; look at the numbers if it looks up a table."""
        if function is nn.functional.embedding:
            numbers, table = args[0], args[1]
            row = numbers.reshape(-1, numbers.shape[-1])[0]
            if len(row) == self._tokens and bool((row.diff() == 1).all()):
                self.first = int(row[0])
                rows = len(table) - self.first
                self.longest = min(rows, self.longest or rows)
        return function(*args, **(kwargs or {}))


def discover(model: nn.Module) -> Architecture:
    """Return the architecture of a model, which is run on a few tokens.

    Args:
        model: a small one, in evaluation mode, with random weights by which every module has an effect.

    Raises:
        BackboneError: it is no model of text, or its hidden states are not one vector for each token and layer.
    """
    path, tower = text_tower(model)
    config = text_config(model, tower)
    blocks, ids = int(getattr(config, "num_hidden_layers", 0)), torch.full((2, LONG), 5)
    if blocks < 1:
        raise BackboneError(f"its config.json says {blocks} blocks, and at least 1 is needed")
    for classes in block_classes(tower, blocks):
        with watched(tower, classes) as watch, PositionTables(LONG) as tables:
            final = run(tower, ids)
        if len(watch.entering) == blocks:
            break
    else:
        raise BackboneError(f"none of its modules is called once for each of its {blocks} blocks")
    shapes = {tuple(states.shape) for states in (*watch.entering, watch.leaving[-1])}
    shape = shapes.pop()
    if shapes or len(shape) != 3 or shape[:2] not in ((2, LONG), (LONG, 2)):
        raise BackboneError(
            "its hidden states are not one vector for each token: it has several streams or skips tokens"
        )
    chained = all(torch.equal(*pair) for pair in zip(watch.leaving, watch.entering[1:], strict=False))
    changed = torch.cat([ids[:, :-1], ids[:, -1:] + 1], 1)
    return Architecture(
        tower=path,
        blocks=classes,
        layers=blocks + 1,
        width=shape[2],
        positions=tables.longest or positive_size(config, "max_position_embeddings"),
        causal=_alike(run(tower, changed)[:, :-1], final[:, :-1]),
        segments=(positive_size(config, "type_vocab_size") or 0) > 1 and _tells_segments(tower, ids, final),
        tail=_tail(watch, final.transpose(0, 1) if shape[0] == LONG else final) if chained else (),
        chained=chained,
        tokens_first=shape[0] == LONG,
        reported=_reports(tower, ids, watch.entering),
        attention=str(config._attn_implementation),
        layer_types=tuple(dict.fromkeys(getattr(config, "layer_types", None) or ())),
        window=positive_size(config, "sliding_window"),
        chunk=positive_size(config, "attention_chunk_size"),
    )


def run(tower: nn.Module, ids: Tensor, **arguments: Any) -> Tensor:
    """Return the last hidden state of some token ids."""
    states: Tensor = call(tower, input_ids=ids, **arguments)[0]
    return states


def call(tower: nn.Module, **arguments: Any) -> Any:
    """Return the output of a model that keeps no cache of keys and values."""
    if "use_cache" in inspect.signature(tower.forward).parameters:
        arguments["use_cache"] = False
    with torch.inference_mode():
        return tower(**arguments)


def _reports(tower: nn.Module, ids: Tensor, entering: list[Tensor]) -> bool:
    reported = getattr(call(tower, input_ids=ids, output_hidden_states=True), "hidden_states", None) or ()
    if len(reported) > len(entering) + 1:
        raise BackboneError(
            f"{len(entering)} blocks were found, and it reports the states of {len(reported) - 1}: some lie in others"
        )
    pairs = zip(reported, entering, strict=False)
    return len(reported) == len(entering) + 1 and all(a.shape == b.shape and _alike(a, b) for a, b in pairs)


def _tail(watch: Watch, final: Tensor) -> tuple[str, ...]:
    """Return the paths of the modules that were called after the last block, up to the one that gave ``final``.

    None if that has another width: then it is no layer of the backbone.
    """

    def gave(output: Any) -> bool:
        return isinstance(output, Tensor) and output.shape == final.shape and torch.equal(output, final)

    if gave(watch.leaving[-1]) or final.shape != watch.leaving[-1].shape:  # a projection to another width is no norm
        return ()
    paths = [path for path, _ in watch.afterwards]
    last = next((number for number, (_, output) in enumerate(watch.afterwards) if gave(output)), len(paths) - 1)
    return tuple(paths[: last + 1])


def _tells_segments(tower: nn.Module, ids: Tensor, final: Tensor) -> bool:
    if "token_type_ids" not in inspect.signature(tower.forward).parameters:
        return False
    second = torch.arange(ids.shape[1]).expand_as(ids) >= ids.shape[1] // 2
    try:
        return not _alike(run(tower, ids, token_type_ids=second.long()), final)
    except (IndexError, RuntimeError):  # its table has no second row
        return False


def _alike(first: Tensor, second: Tensor) -> bool:
    return bool((first - second).abs().max() <= SAME * second.abs().max())


def positive_size(config: Any, key: str) -> int | None:
    """Return a size that a configuration names; None if it names none."""
    size = getattr(config, key, None)
    return size if isinstance(size, int) and size > 0 else None


def block_classes(tower: nn.Module, blocks: int) -> Iterator[tuple[str, ...]]:
    """Yield the names of the classes that may be the blocks, the likeliest first."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    recorded = (getattr(type(tower), "_can_record_outputs", None) or {}).get("hidden_states")
    recorded = recorded if isinstance(recorded, list | tuple) else [recorded]
    declared = tuple(kind for each in recorded if isinstance(kind := getattr(each, "target_class", each), type))
    for kinds in (declared, (GradientCheckpointingLayer,)):
        if kinds and (names := tuple(dict.fromkeys(type(m).__name__ for m in tower.modules() if isinstance(m, kinds)))):
            yield names
    for module in tower.modules():
        if isinstance(module, nn.ModuleList) and len(module) == blocks:
            yield tuple(dict.fromkeys(type(entry).__name__ for entry in module))


class Stop(Exception):  # noqa: N818  no error
    """Ends a forward pass above the last layer that is asked for; raised in a hook within :func:`stoppable`."""


@contextmanager
def stoppable(hooks: Sequence[RemovableHandle]) -> Iterator[None]:
    """Allow hooks to end the forward pass by raising :class:`Stop`, and remove them after it."""
    try:
        with suppress(Stop):
            yield
    finally:
        for hook in hooks:
            hook.remove()

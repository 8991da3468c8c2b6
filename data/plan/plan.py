"""The capture plan: which hidden states of a forward pass are stored; and the settings of the extraction.

A plan is written by the user. :class:`permafrost.data.store.identity.Identity` is the same plan resolved on this
machine: digests for names, a dtype for ``auto``.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from permafrost.data.machine import check_device
from permafrost.data.plan.layers import check_layers, resolve_layers
from permafrost.data.plugin_registry import NAME, is_known, unknown_name
from permafrost.data.plugins import Pooling
from permafrost.data.spec import SpecError

VIEWS = Pooling.built_in
"""Views of this package; others are poolings from outside."""

VIEW_NAME = NAME
"""A valid name of a view."""

TOKENS = "tokens"
"""The only view that is not pooled: it keeps every token of a text."""

TEXT_LAST: Final = "text_last"
"""The view that is the last token of the text itself, not of the template nor a special token."""

SUMMARIES = ("mean", "weighted_mean", "max", "sum")
"""Views over many tokens: of the text alone if the template has words around it, else special tokens included."""

TEXT = "{text}"
"""Placeholder of the text in a template."""

SYSTEM = "{system}"
"""Placeholder of the system message in a template."""

CHAT = "chat"
"""Template that stands for the chat template of the tokenizer."""

OR_FEWER = re.compile(r"(\d+) or fewer")
"""Limit of tokens that is lowered to what the backbone reads."""

Columns = Mapping[str, tuple[int, ...]]
"""View -> layers."""

NO_WINDOWS = -1
"""Stride of a plan that does not split texts into windows."""

REWORDINGS = ("lower_case", "no_final_stop")


@dataclass(frozen=True, kw_only=True)
class CapturePlan:
    """Hidden states to store for each text; equal plans read the same store."""

    backbone: str = "minilm"
    """Frozen language model: a short name (minilm, smollm2, gpt2-medium, bert-base, ...), a hub id, a local folder, or
    a GGUF file, which is converted once, into the cache."""

    revision: str = ""
    """Commit of the hub repository; empty uses the commit pinned for a short name, else the one in the local hub cache,
    else the newest."""

    adapter: str = ""
    """Folder of a LoRA adapter of the backbone (adapter_config.json, adapter_model.safetensors), which peft merges into
    the weights in memory; empty reads the backbone as it is."""

    init: Literal["pretrained", "random"] = "pretrained"
    """Weights of the backbone: "pretrained" loads them; "random" builds the same architecture untrained, the control of
    probing papers."""

    init_seed: int = 0
    """Seed of the untrained weights if init is "random"."""

    tokenizer: str = ""
    """Folder of another tokenizer; empty uses the backbone's own."""

    template: str = "{text}"
    """Text around each input, e.g. 'This sentence : "{text}" means in one word:"'; if {text} occurs twice, only the
    second occurrence is pooled. "chat" is the tokenizer's chat template: the text as the user's message, up to where
    the answer would begin; a date that it writes is 26 July 2024."""

    system: str = ""
    """System message: takes the place of {system} in the template, and is the system message of the chat template;
    empty leaves the one that the chat template has itself, if any."""

    add_special_tokens: bool = True
    """Put the tokenizer's special tokens (BOS, EOS, [CLS], ...) around the filled template; false for a template that
    writes them itself. A chat template does: none are added to it."""

    rewording: tuple[str, ...] = ()
    """Changes to a text before the template: lower_case, no_final_stop, or OLD=NEW for a whole word."""

    views: tuple[str, ...] = ("mean",)
    """How the hidden states of a text become latents; several views cost one forward pass. "last" and "cls" are the
    last and the first token of all, "text_last" is the last token that covers characters of the text. "mean",
    "weighted_mean", "max" and "sum" are over all tokens, special ones included; if the template has words around the
    text, over the tokens of the text alone. "tokens" keeps every token, with its id and its span of characters. A
    pooling of your own goes by its name."""

    layers: tuple[int, ...] | str = "all"
    """Layers to keep: "all", a list, or a range such as "1..-1". 0 is the embedding output, k the output of block k;
    negative numbers count from the last."""

    max_tokens: int | str = "256 or fewer"
    """Maximum number of tokens, template and special tokens included; longer texts are truncated at the end (see
    truncation). A number must not exceed what the backbone reads; "256 or fewer" is lowered to it, with a note."""

    truncation: Literal["cut", "refuse", "windows"] = "cut"
    """Treatment of texts of more than max_tokens: "cut" truncates them and reports how many; "refuse" stops before
    anything runs; "windows" runs a text in several windows of max_tokens, split between words, each with the template
    and the special tokens. Views are then those of the whole text, of which every token counts once, in the window
    where it has most context; the view tokens has all of them. Of two segments, each window has the whole first one
    and a part of the second, and is read on its own."""

    stride: int = 128
    """Tokens of the text, or its second segment, that one window shares with the next if truncation is "windows"."""

    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Data type of the forward pass; "auto" selects bfloat16 if the hardware supports it natively, else float32."""

    stored_dtype: Literal["auto", "float16", "bfloat16", "float32", "int8"] = "auto"
    """Precision on disk. "auto" runs a few fixed texts once for each backbone, and selects float16 if four times their
    largest value fits it, else bfloat16, which has the range of float32 and three significant digits. "int8" takes
    about half as much, for the view tokens above all: whole steps of a scale that 64 dimensions of a vector share, and
    the largest of them apart. A value that does not fit is an error that names layer and text."""

    final_norm: bool = False
    """Store the last layer after the final norm of the backbone (GPT-2, Qwen2 and Llama have one)."""

    def __post_init__(self) -> None:
        if isinstance(self.max_tokens, str) and not OR_FEWER.fullmatch(self.max_tokens):
            raise SpecError(
                f'max_tokens must be a whole number, or one that may be lowered, as "256 or fewer"; got '
                f"{self.max_tokens!r}."
            )
        if self.token_limit < 1:
            raise SpecError(f"max_tokens must be at least 1, got {self.max_tokens}.")
        if self.stride < 0:
            raise SpecError(f"stride must be 0 or more, got {self.stride}.")
        if self.overlap >= self.token_limit:
            raise SpecError(
                f"stride = {self.stride} must be less than max_tokens = {self.token_limit}, or windows never come to "
                "an end."
            )
        if self.overlap != NO_WINDOWS and self.template.count(TEXT) > 1:
            raise SpecError('truncation = "windows" needs a template that has {text} once; set truncation = "cut".')
        if self.adapter and self.init == "random":
            raise SpecError('adapter is merged into trained weights, and init = "random" draws them: leave one out.')
        check_template(self.template, self.system)
        for change in self.rewording:
            if change not in REWORDINGS and not re.match(r"\S+=", change):
                raise SpecError(f"rewording '{change}' is not {', '.join(REWORDINGS)} or OLD=NEW.")
        if not self.views:
            raise SpecError("views must name at least one.")
        if len(set(self.views)) < len(self.views):
            raise SpecError(f"views names one twice: {list(self.views)}.")
        for view in self.own_poolings:
            if not is_known(Pooling, view):
                raise SpecError(f"views = '{view}': {unknown_name(Pooling, view)}")
            if self.overlap != NO_WINDOWS:
                raise SpecError(
                    f"views has '{view}', a pooling that cannot be made of the windows of a text: set "
                    'truncation = "cut" or "refuse".'
                )
        if TOKENS in self.views and self.rewording:
            raise SpecError(
                "views has tokens, whose character spans refer to the text as it is, and rewording changes the text: "
                "leave one of them out."
            )
        check_layers(self.layers)

    @property
    def overlap(self) -> int:
        """Number of tokens by which windows overlap; -1 if texts are not split into windows."""
        return self.stride if self.truncation == "windows" else NO_WINDOWS

    @property
    def token_limit(self) -> int:
        """Number in :attr:`max_tokens`, which "or fewer" may still lower."""
        return int(str(self.max_tokens).split()[0])

    def limit_note(self, limit: int) -> str:
        """Return a note that :attr:`max_tokens` becomes ``limit``, which the backbone reads; empty if it need not."""
        changed = f'{self.backbone} reads {limit} tokens, which plan.max_tokens = "{self.max_tokens}" becomes'
        return changed if limit < self.token_limit else ""

    @property
    def own_poolings(self) -> tuple[str, ...]:
        """Views that are poolings from outside this package, in alphabetical order."""
        return tuple(sorted(set(self.views) - set(VIEWS)))

    @property
    def text_views(self) -> tuple[str, ...]:
        """Views that see the tokens of the text alone, and neither words of the template nor special tokens."""
        has_words = self.template != TEXT and self.template.count(TEXT) < 2  # of two occurrences, all see the second
        return (TEXT_LAST, *SUMMARIES, *self.own_poolings) if has_words else (TEXT_LAST,)

    @property
    def same_store(self) -> "CapturePlan":
        """A plan that is equal for plans whose latents are in one store, of one forward pass: others may differ in
        views and layers.
        """
        views = *self.own_poolings, "mean" if self.pools_text else "last"
        return replace(self, views=views, layers="all")

    @property
    def pools_text(self) -> bool:
        """Whether some of the views are over the tokens of the text alone because the template has words around it."""
        return not {*self.views, TEXT_LAST}.isdisjoint(self.text_views[1:])

    def columns(self, layers: int) -> dict[str, tuple[int, ...]]:
        """Return the columns of this plan for a backbone with ``layers`` layers, the embedding output included."""
        wanted = resolve_layers(self.layers, range(layers))
        return dict.fromkeys(sorted(set(self.views)), wanted)


@dataclass(frozen=True, kw_only=True)
class ExtractSpec:
    """Settings of the extraction; none of them changes a latent, so none is part of the identity of a store."""

    cache: str = "cache"
    """Folder of the latent stores; or an address on object storage, such as "s3://bucket/latents" (extra s3), that many
    machines may write to at once. What is read of it is copied to $XDG_CACHE_HOME/permafrost (~/.cache/permafrost)."""

    device: str = "auto"
    """Device of the extraction, if it is not that of the recipe: as the setting device; "auto" is the recipe's."""

    device_map: Literal["", "auto"] = ""
    """Where the weights lie: empty puts all of them on the device; "auto" lets accelerate spread them over all GPUs,
    then the memory of the CPU, then the disk, for a backbone that fits no single device. Untrained weights (plan.init)
    are not spread."""

    batch_tokens: int = 0
    """Maximum number of tokens per forward pass, padding included; 0 is 1,024 on the CPU, and on a GPU 16,384 or what
    its free memory allows. A pass that a GPU has no memory for runs in halves, and so do those after it."""

    block_texts: int = 1 << 16
    """Number of distinct texts that are read, laid out in forward passes, run and committed together: memory is that of
    a block, however many texts a corpus has. Lower it for long documents, and it takes less. Texts of a causal backbone
    share computation within a block only."""

    shard_bytes: int = 64 << 20
    """Bytes of latents held in memory before a shard is committed; a crash loses at most these."""

    keep_texts: bool = False
    """Keep the texts too, as parquet in the folder of the store, also of latents stored already: pf.open has them."""

    shard_seconds: float = 60.0
    """Seconds after which a shard is committed even if it is smaller."""

    max_bytes: int = 0
    """Maximum number of bytes that one extraction may add to the cache; more is refused before anything runs. 0 allows
    the free disk space."""

    def __post_init__(self) -> None:
        check_device(self.device)
        if self.max_bytes < 0:
            raise SpecError(f"max_bytes must be 0 (the free disk space) or more, got {self.max_bytes}.")
        if self.device_map and self.device != "auto":
            raise SpecError(
                f'device = "{self.device}" names one device, and device_map = "{self.device_map}" takes all of them: '
                "leave one of them out."
            )
        if self.batch_tokens < 0 or self.shard_bytes < 1 or self.shard_seconds <= 0:
            raise SpecError("batch_tokens, shard_bytes and shard_seconds must be positive.")
        if self.block_texts < 1:
            raise SpecError(f"block_texts must be at least 1, got {self.block_texts}.")


def union_of_columns(all_columns: Iterable[Columns]) -> dict[str, tuple[int, ...]]:
    """Return every view, sorted, with every layer that any of several columns has of it, ascending."""
    union: dict[str, set[int]] = {}
    for columns in all_columns:
        for view, layers in columns.items():
            union.setdefault(view, set()).update(layers)
    return {view: tuple(sorted(layers)) for view, layers in sorted(union.items())}


def check_template(template: str, system: str) -> None:
    """Raise a :class:`SpecError` if a template has no place for a text, or a system message and it do not fit."""
    if template != CHAT and template.count(TEXT) not in (1, 2):
        raise SpecError(f'template must contain {{text}} once or twice, or be "chat", got {template!r}.')
    if TEXT in system or SYSTEM in system:
        raise SpecError(f"system must not contain {{text}} or {{system}}, got {system!r}.")
    if template != CHAT and bool(system) != (SYSTEM in template):
        problem = "has no {system}" if system else "has {system}, and system is empty"
        raise SpecError(
            f'template = {template!r} {problem}; set both or none, or set template = "chat", which needs no {{system}}.'
        )

"""The identity of a latent store: everything that changes a latent, with digests for names and resolved dtypes.

Its fingerprint names the folder of the store.
"""

import json
from dataclasses import dataclass, fields, replace
from typing import Any, get_args

from permafrost.data.code.parts import code_digest
from permafrost.data.errors import CorpusError
from permafrost.data.plan.plan import CHAT, NO_WINDOWS, SYSTEM, CapturePlan
from permafrost.data.plugin_registry import find
from permafrost.data.plugins import Pooling
from permafrost.data.spec import fingerprint, plain

COMPUTE_DTYPES = ("float32", "bfloat16")
"""Legal dtypes of the forward pass."""

STORED_DTYPES = ("float16", "bfloat16", "float32", "int8")
"""Legal dtypes on disk."""

AUTO_STORED_DTYPES = ("float16", "bfloat16")
"""Dtypes on disk that ``auto`` selects from."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Everything that changes a latent, and nothing else: stores of equal identity hold equal latents."""

    weights: str
    """Digest of the weights and of the configuration of the model."""

    tokenizer: str
    """Digest of the tokenizer's files, special tokens included."""

    template: str
    rewording: str
    """List of rewordings, as JSON."""

    max_tokens: int
    compute_dtype: str
    stored_dtype: str
    final_norm: bool
    stride: int = NO_WINDOWS
    """Number of tokens by which windows overlap; -1 if texts are not split into windows."""

    add_special_tokens: bool | None = None
    """False if the tokenizer's special tokens are left out, else None, which is left out of the fingerprint."""

    pools_text: bool | None = None
    """True if views are over the tokens of the text alone because the template has words around it, else None."""

    keeps_float32: bool | None = None
    """True if the forward pass is in bfloat16: what transformers keeps in float32, such as the frequencies of rotary
    positions, stays so; else None. Stores without it were computed with that rounded too."""

    poolings: str | None = None
    """Poolings from outside this package and digests of their code, as JSON; None if the plan has none."""

    @classmethod
    def of(
        cls, plan: CapturePlan, *, weights: str, tokenizer: str, compute_dtype: str, stored_dtype: str
    ) -> "Identity":
        """Return the identity of a plan whose names are resolved to digests, and ``auto`` to dtypes.

        Args:
            plan: its template is no name, and its ``max_tokens`` is a number.
        """
        assert plan.template != CHAT
        assert isinstance(plan.max_tokens, int)
        return cls(
            weights=weights,
            tokenizer=tokenizer,
            template=plan.template.replace(SYSTEM, plan.system),
            rewording=json.dumps(plan.rewording),
            max_tokens=plan.max_tokens,
            compute_dtype=compute_dtype,
            stored_dtype=stored_dtype,
            final_norm=plan.final_norm,
            stride=plan.overlap,
            add_special_tokens=None if plan.add_special_tokens else False,
            pools_text=True if plan.pools_text else None,
            keeps_float32=True if compute_dtype == "bfloat16" else None,
            poolings=json.dumps(pooling_digests(plan)) if plan.own_poolings else None,
        )

    @property
    def in_windows(self) -> bool:
        """Whether texts that are too long are split into windows."""
        return self.stride != NO_WINDOWS

    @property
    def name(self) -> str:
        """Folder name of the store: 16 hex digits."""
        return fingerprint(self)

    @classmethod
    def from_json(cls, values: Any) -> "Identity":
        """Build an identity from the parsed JSON of a shard; raise ``ValueError`` if it is not one."""
        types = {field.name: (get_args(field.type) or [field.type])[0] for field in fields(cls)}
        required = {field.name for field in fields(cls) if field.default is not None}
        if not isinstance(values, dict) or not required <= set(values) <= set(types):
            raise ValueError("not an identity")
        for key, value in values.items():
            if type(value) is not types[key]:
                raise ValueError(f"{key} is not of type {types[key]}")
        if values["compute_dtype"] not in COMPUTE_DTYPES:
            raise ValueError(f"compute_dtype is {values['compute_dtype']!r}")
        if values["stored_dtype"] not in STORED_DTYPES:
            raise ValueError(f"stored_dtype is {values['stored_dtype']!r}")
        return cls(**values)

    def fits(self, plan: CapturePlan, longest: int) -> bool:
        """Return whether this is the identity of a plan with some digests, and some choice of its dtypes ``auto``.

        Any template is one of a plan with the template ``chat``.

        Args:
            longest: number of tokens that the backbone reads.
        """
        limit = plan.max_tokens if isinstance(plan.max_tokens, int) else min(plan.token_limit, longest)
        if plan.template == CHAT:
            plan = replace(plan, template=self.template, system="", add_special_tokens=False)
        is_auto = plan.stored_dtype == "auto" and self.stored_dtype in AUTO_STORED_DTYPES
        return self == Identity.of(
            replace(plan, max_tokens=limit),
            weights=self.weights,
            tokenizer=self.tokenizer,
            compute_dtype=self.compute_dtype if plan.compute_dtype == "auto" else plan.compute_dtype,
            stored_dtype=self.stored_dtype if is_auto else plan.stored_dtype,
        )

    def differences(self, other: "Identity") -> list[str]:
        """Return the names of the fields in which two identities differ."""
        values, other_values = plain(self), plain(other)
        return [key for key in vars(self) if values.get(key) != other_values.get(key)]


def pooling_digests(plan: CapturePlan) -> dict[str, str]:
    """Return pooling from outside -> digest of its code.

    Raises:
        PluginError: one of them is not installed.
    """
    return {name: code_digest(find(Pooling, name).function) for name in plan.own_poolings}


OUTDATED = {"pools_text", "keeps_float32"}
"""Fields of an identity that say how latents are computed; the backbone is the same where these differ."""


def check_same_latents(found: Identity, trained: Identity, origin: str, backbone: str) -> None:
    """Check that latents are of the backbone that something was trained on, and computed alike.

    Args:
        found: identity of the latents on this machine.
        trained: identity of those in training.
        origin: what was trained, for messages.
        backbone: name of the backbone on this machine.

    Raises:
        CorpusError: the identities differ.
    """
    differences = found.differences(trained)
    if differences and OUTDATED.issuperset(differences):
        raise CorpusError(
            f"{origin}: this run was trained on latents of an earlier version, which computed those of "
            f"'{backbone}' in another way ({', '.join(differences)}); run the recipe again."
        )
    if differences == ["poolings"]:
        raise CorpusError(
            f"{origin}: the poolings that this run was trained on ({trained.poolings}) are not those installed here "
            f"({found.poolings}); install the version that the run used, or run the recipe again."
        )
    if differences:
        raise CorpusError(
            f"{origin}: the backbone '{backbone}' found here has other {' and '.join(differences)} than the one "
            "this run was trained on; give it back what it had, name its place by --backbone, or run the recipe again."
        )


def folder_name(backbone: str) -> str:
    """Return the folder name of a backbone: the last two parts of a hub id or a path."""
    parts = [part for part in backbone.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return "--".join("".join(c if c.isalnum() or c in "-_." else "_" for c in part) for part in parts[-2:]) or "_"


def init_name(plan: CapturePlan) -> str:
    """Return the initialisation of the weights of a plan, as shards record it."""
    return plan.init if plan.init == "pretrained" else f"random, seed {plan.init_seed}"

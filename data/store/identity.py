"""TODO: data/store/identity.py."""

from dataclasses import dataclass, fields
from typing import Any

from permafrost.data.spec import fingerprint, plain
from permafrost.data.store.plan import WHOLE

COMPUTED = ("float32", "bfloat16")
"""Dtypes that latents are computed in."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What changes a latent, and nothing else: two stores of equal identity hold equal latents."""

    weights: str
    """Digest of the weights and of the configuration that says how they are used."""

    tokenizer: str
    """Digest of the tokenizer's files, special tokens included."""

    template: str
    rewording: str
    """As JSON."""

    max_tokens: int
    compute_dtype: str
    stored_dtype: str
    final_norm: bool
    stride: int = WHOLE
    """Tokens by which windows overlap; -1 where no text has several."""

    @property
    def name(self) -> str:
        """Sixteen hex digits: the store's folder name."""
        return fingerprint(self)

    @classmethod
    def from_json(cls, values: Any) -> "Identity":
        """Read back what a shard says of itself; raises ``ValueError`` on anything else."""
        names = {field.name: field.type for field in fields(cls)}
        if not isinstance(values, dict) or set(values) != set(names):
            raise ValueError("not an identity")
        for key, value in values.items():
            if type(value) is not names[key]:
                raise ValueError(f"{key} is not of type {names[key]}")
        if values["compute_dtype"] not in COMPUTED:
            raise ValueError(f"compute_dtype is {values['compute_dtype']!r}")
        return cls(**values)

    def differences(self, other: "Identity") -> list[str]:
        """The fields in which two identities differ."""
        mine, theirs = plain(self), plain(other)
        return [key for key in mine if mine[key] != theirs[key]]

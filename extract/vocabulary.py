"""A vocabulary for a model that is to be pretrained: its tokenizer, special tokens, and whether they serve."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data.blocks import Frame, Masking
from data.language import LanguageSpec
from data.spec import SpecError
from extract.backbones import tokenizer_files
from extract.loading import load_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL = {
    "mask_token": ("[MASK]", "<mask>"),
    "pad_token": ("[PAD]", "<pad>"),
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "eos_token": ("<|endoftext|>", "</s>", "[SEP]"),
    "unk_token": ("[UNK]", "<unk>", "<|endoftext|>"),
}
"""What transformers calls a special token, and how vocabularies spell it."""

CHUNK = 1024


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """A tokenizer and its special tokens."""

    tokenizer: "Tokenizer"
    size: int
    """Rows of the embedding table."""

    digest: str
    """Of the tokenizer's files."""

    frame: Frame

    def id(self, role: str) -> int | None:
        """The id of a special token by its name in transformers."""
        spelt = self._spelt(role)
        found: int | None = self.tokenizer.token_to_id(spelt) if spelt else None
        return found

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without special tokens."""
        found: list[list[int]] = []
        for start in range(0, len(texts), CHUNK):
            chunk = list(texts[start : start + CHUNK])
            found.extend(one.ids for one in self.tokenizer.encode_batch_fast(chunk, add_special_tokens=False))
        return found

    def masking(self, share: float) -> Masking:
        """How tokens of it are hidden."""
        mask = self.id("mask_token")
        assert mask is not None
        special = {mask, self.id("pad_token"), *self.frame.before, *self.frame.after, *self.frame.between}
        return Masking(mask, np.array(sorted(set(self.tokenizer.get_vocab().values()) - special)), share)

    def save(self, folder: Path) -> None:
        """Write the tokenizer as transformers reads it."""
        from transformers import PreTrainedTokenizerFast

        names = {role: spelt for role in SPECIAL if (spelt := self._spelt(role))}
        PreTrainedTokenizerFast(tokenizer_object=self.tokenizer, **names).save_pretrained(folder)

    def _spelt(self, role: str) -> str:
        return next((token for token in SPECIAL[role] if self.tokenizer.token_to_id(token) is not None), "")


def read_vocabulary(spec: LanguageSpec) -> Vocabulary:
    """The vocabulary of a spec.

    Raises:
        SpecError: it does not fit the model: no mask token, more entries than the embedding table has rows, or no room
            for text beside its special tokens.
        BackboneError: the folder holds no tokenizer.
    """
    folder = Path(spec.vocabulary).expanduser()
    if not spec.vocabulary or not folder.is_dir():
        raise SpecError(f"language.vocabulary must name the folder of a tokenizer, got {spec.vocabulary!r}.")
    tokenizer = load_tokenizer(folder)
    entries = max(tokenizer.get_vocab().values()) + 1
    if 0 < spec.vocabulary_size < entries:
        raise SpecError(
            f"language.vocabulary_size = {spec.vocabulary_size:,}, but the ids of {folder} go up to {entries - 1:,}; "
            "set it to 0."
        )
    digest = hashlib.sha256()
    for path in tokenizer_files(folder):
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    vocabulary = Vocabulary(tokenizer, spec.vocabulary_size or entries, digest.hexdigest()[:16], _frame(tokenizer))
    if spec.objective == "masked" and vocabulary.id("mask_token") is None:
        raise SpecError(
            f"{folder} has no mask token ({' or '.join(SPECIAL['mask_token'])}), which language.objective = "
            "'masked' needs; take another vocabulary, or 'causal'."
        )
    if len(vocabulary.frame.before) + len(vocabulary.frame.after) > spec.block_tokens // 2:
        raise SpecError(
            f"language.block_tokens = {spec.block_tokens} leaves little room beside the special tokens of {folder}."
        )
    return vocabulary


def _frame(tokenizer: "Tokenizer") -> Frame:
    """What the tokenizer puts around a text, and between two: the end that it gives one, or an end-of-text token."""
    encoding = tokenizer.encode("a")
    ordinary = [place for place, special in enumerate(encoding.special_tokens_mask) if not special]
    first, last = (ordinary[0], ordinary[-1] + 1) if ordinary else (0, 0)
    before, after = tuple(encoding.ids[:first]), tuple(encoding.ids[last:])
    ends = (tokenizer.token_to_id(token) for token in SPECIAL["eos_token"])
    end = next((number for number in ends if number is not None), None)
    return Frame(before, after, after or (() if end is None else (end,)))

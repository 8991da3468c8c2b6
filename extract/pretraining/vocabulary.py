"""Vocabularies for pretraining: a tokenizer, read or learned, its special tokens, and checks that it fits the model.

transformers and tokenizers are imported where they are used: they are slow to import, and most commands pretrain
nothing.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from permafrost.data.language.spec import LanguageSpec
from permafrost.data.spec import SpecError
from permafrost.extract.architecture.configuration import BackboneError
from permafrost.extract.backbones.locate import find_tokenizer
from permafrost.extract.backbones.registry import SHORT_NAMES
from permafrost.extract.backbones.tokenizer import load_tokenizer, tokenizer_digest
from permafrost.extract.backbones.tokenizer_files import read_tokenizer
from permafrost.extract.pretraining.blocks import Frame, Masking

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
"""transformers' name of a special token -> spellings of it in vocabularies, in order of preference."""

LEARNED = {"masked": ("[CLS]", "[SEP]", "[MASK]", "[PAD]"), "causal": ("<|endoftext|>",)}
"""Objective -> special tokens of a vocabulary learned for it."""

CHUNK = 1024
"""Texts per call of the tokenizer."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Tokenizer and its special tokens."""

    tokenizer: "Tokenizer"
    size: int
    """Number of rows of the embedding table."""

    digest: str
    """Digest of the tokenizer."""

    @cached_property
    def frame(self) -> Frame:
        """What the tokenizer puts around a text; two texts are parted by its end, or by an end-of-text token."""
        encoding = self.tokenizer.encode("a")
        ordinary = [index for index, special in enumerate(encoding.special_tokens_mask) if not special]
        first, last = (ordinary[0], ordinary[-1] + 1) if ordinary else (0, 0)
        before, after, end = tuple(encoding.ids[:first]), tuple(encoding.ids[last:]), self.id("eos_token")
        return Frame(before, after, after or (() if end is None else (end,)))

    def id(self, role: str) -> int | None:
        """Return the id of a special token by its name in transformers; None if there is none."""
        spelling = self._spelling(role)
        token_id: int | None = self.tokenizer.token_to_id(spelling) if spelling else None
        return token_id

    def encode(self, texts: Iterable[str]) -> Iterator[list[int]]:
        """Yield the token ids of each text, without special tokens."""
        remaining = iter(texts)
        while chunk := list(islice(remaining, CHUNK)):
            for encoding in self.tokenizer.encode_batch_fast(chunk, add_special_tokens=False):
                yield encoding.ids

    def masking(self, share: float) -> Masking:
        """Return the masking of a ``share`` of tokens; the vocabulary must have a mask token."""
        mask = self.id("mask_token")
        assert mask is not None
        special = {mask, self.id("pad_token"), *self.frame.before, *self.frame.after, *self.frame.between}
        return Masking(mask, np.array(sorted(set(self.tokenizer.get_vocab().values()) - special)), share)

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files as transformers reads them."""
        from transformers import PreTrainedTokenizerFast

        names = {role: spelling for role in SPECIAL if (spelling := self._spelling(role))}
        PreTrainedTokenizerFast(tokenizer_object=self.tokenizer, **names).save_pretrained(folder)

    def _spelling(self, role: str) -> str:
        return next((token for token in SPECIAL[role] if self.tokenizer.token_to_id(token) is not None), "")


def read_vocabulary(spec: LanguageSpec, texts: Iterable[str] = ()) -> Vocabulary:
    """Return the vocabulary that a spec names, or one learned from ``texts`` if it names none.

    Raises:
        SpecError: the vocabulary does not fit the model: it has no mask token, or more entries than the embedding table
            has rows, or its special tokens leave little room for text.
        BackboneError: the folder holds no tokenizer.
    """
    if spec.vocabulary:
        tokenizer, digest = load_tokenizer(vocabulary_folder(spec.vocabulary)), vocabulary_digest(spec)
    else:
        tokenizer = learn_tokenizer(texts, spec.vocabulary_size, LEARNED[spec.objective])
        digest = tokenizer_digest(tokenizer)[:16]
    name = spec.vocabulary or "the learned vocabulary"
    entries = max(tokenizer.get_vocab().values()) + 1
    if 0 < spec.vocabulary_size < entries:
        raise SpecError(
            f"language.vocabulary_size = {spec.vocabulary_size:,}, but the ids of {name} go up to {entries - 1:,}; "
            "set it to 0."
        )
    vocabulary = Vocabulary(tokenizer, spec.vocabulary_size or entries, digest)
    if spec.objective == "masked" and vocabulary.id("mask_token") is None:
        raise SpecError(
            f"{name} has no mask token ({' or '.join(SPECIAL['mask_token'])}), which language.objective = "
            "'masked' needs; take another vocabulary, or 'causal'."
        )
    if len(vocabulary.frame.before) + len(vocabulary.frame.after) > spec.block_tokens // 2:
        raise SpecError(
            f"language.block_tokens = {spec.block_tokens} leaves little room beside the special tokens of {name}."
        )
    return vocabulary


def vocabulary_folder(name: str) -> Path:
    """Return the folder of the tokenizer that a spec names; raise :class:`SpecError` if there is none."""
    folder = Path(name).expanduser()
    if name not in SHORT_NAMES and folder.is_dir():
        return folder
    try:
        return find_tokenizer(name)
    except BackboneError as error:
        reason = str(error).split(";")[0].rstrip(".")  # the rest is advice about backbones
        raise SpecError(
            f"language.vocabulary: {reason}; take minilm, name a folder that holds a tokenizer, or leave it empty and "
            "set language.vocabulary_size."
        ) from error


def vocabulary_digest(spec: LanguageSpec) -> str:
    """Return the digest of the tokenizer files that a spec names; empty if it names none."""
    return read_tokenizer(vocabulary_folder(spec.vocabulary)).digest[:16] if spec.vocabulary else ""


def learn_tokenizer(texts: Iterable[str], entries: int, special: Sequence[str]) -> "Tokenizer":
    """Learn a byte-level byte-pair encoding from ``texts``; it can encode any text.

    Args:
        entries: maximum number, the special tokens and the 256 bytes included.
        special: special tokens; if there are several, the first two are put at the ends of a text.

    Raises:
        SpecError: ``entries`` leaves no room for a pair.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if entries <= len(alphabet) + len(special):
        raise SpecError(
            "language.vocabulary is empty, so one is learned: language.vocabulary_size must be more than "
            f"{len(alphabet) + len(special)}, got {entries}; set it, to 8192 for example, or name minilm or gpt2."
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=entries, initial_alphabet=alphabet, special_tokens=list(special), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    if len(special) > 1:
        first, last = special[:2]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{first} $A {last}",
            pair=f"{first} $A {last} $B:1 {last}:1",
            special_tokens=[(token, tokenizer.token_to_id(token)) for token in (first, last)],
        )
    return tokenizer

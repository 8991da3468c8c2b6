"""Tokenization of texts by a plan; for models that run from the embeddings on, without loading any weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from permafrost.data.ragged import TokenIndex
from permafrost.data.store.plan import CapturePlan
from permafrost.data.text import Text
from permafrost.extract.backbones.load import load_tokenizer
from permafrost.extract.backbones.locate import Source, find_backbone
from permafrost.extract.tokenization.checks import check_texts, refuse_long_texts
from permafrost.extract.tokenization.rewording import reword
from permafrost.extract.tokenization.token_batch import TokenBatch
from permafrost.extract.tokenization.tokenize import tokenize, windowed

if TYPE_CHECKING:  # a run whose latents are all stored does without tokenizers
    from tokenizers import Tokenizer


def tokenize_by_plan(
    plan: CapturePlan, source: Source, tokenizer: "Tokenizer", texts: Sequence[Text], characters: bool
) -> TokenBatch:
    """Reword and tokenize a whole request.

    Args:
        characters: whether to return the characters of the text that each token covers.

    Raises:
        TextError: a text has no token, or is longer than the plan allows.
        BackboneError: the tokenizer is that of another model.
        SpecError: the template alone fills ``max_tokens``.
    """
    reworded = [reword(str(text), plan.rewording) for text in texts] if plan.rewording else texts
    tokens = tokenize(tokenizer, reworded, plan.template, plan.max_tokens, characters, plan.overlap)
    source.check_ids(tokens.ids)
    if plan.truncation == "refuse" and (tokens.uncut > plan.max_tokens).any():
        refuse_long_texts(texts, tokens.uncut, plan)
    return tokens


@dataclass(frozen=True, eq=False, kw_only=True)
class TokenIds:
    """Token ids of texts, all windows of a text one after another."""

    batch: TokenBatch
    """The windows."""

    tokens: TokenIndex

    def rows(self, windows: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int8] | None]:
        """Return the token ids of some windows, one after another, and their token type ids."""
        chosen = self.batch.select(windows)
        return chosen.ids, chosen.token_type_ids


def read_token_ids(plan: CapturePlan, texts: Sequence[Text]) -> TokenIds:
    """Tokenize ``texts`` as an extraction of the same plan does.

    Raises:
        BackboneError: the backbone is not on this machine, has no tokenizer, or has that of another model.
        TextError: a text has no token, or is longer than the plan allows.
        SpecError: the template alone fills ``max_tokens``, or texts of two segments meet a template or a rewording.
    """
    check_texts(plan, texts)
    source = find_backbone(plan)
    tokenizer = load_tokenizer(source.tokenizer_files)
    windows, starts = windowed(tokenizer, texts, plan.max_tokens, plan.overlap)
    batch = tokenize_by_plan(plan, source, tokenizer, windows, True)
    assert batch.characters is not None
    return TokenIds(batch=batch, tokens=TokenIndex(offsets=batch.offsets, spans=batch.characters, starts=starts))

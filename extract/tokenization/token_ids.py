"""Token ids of texts, for models that run from the embeddings on: the tokenizer is loaded, and no weights are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from permafrost.data.ragged import TokenIndex
from permafrost.data.store.plan import CapturePlan
from permafrost.data.text import Text
from permafrost.extract.backbones.load import load_tokenizer
from permafrost.extract.backbones.locate import find_backbone
from permafrost.extract.tokenization.checks import check_texts, refuse_long_texts
from permafrost.extract.tokenization.rewording import reword
from permafrost.extract.tokenization.tokenize import tokenize, windowed


@dataclass(frozen=True, eq=False, kw_only=True)
class TokenIds:
    """Token ids of texts, all windows of a text one after another."""

    tokens: TokenIndex

    ids: NDArray[np.int32]
    """``[token]``."""

    token_type_ids: NDArray[np.int8] | None
    """``[token]``, the segment of each token; None if all texts have one segment."""

    def rows(self, windows: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int8] | None]:
        """Return the token ids of some windows, one after another, and their token type ids."""
        index = self.tokens.tokens_of(windows)
        return self.ids[index], None if self.token_type_ids is None else self.token_type_ids[index]


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
    reworded = [reword(str(text), plan.rewording) for text in windows] if plan.rewording else windows
    tokens = tokenize(tokenizer, reworded, plan.template, plan.max_tokens, True, plan.overlap)
    source.check_ids(tokens.ids)
    if plan.truncation == "refuse" and (tokens.uncut > plan.max_tokens).any():
        refuse_long_texts(windows, tokens.uncut, plan)
    assert tokens.characters is not None
    return TokenIds(
        tokens=TokenIndex(offsets=tokens.offsets, spans=tokens.characters, starts=starts),
        ids=tokens.ids,
        token_type_ids=tokens.token_type_ids,
    )

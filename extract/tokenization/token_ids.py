"""Texts as token ids, for what runs them from the text on; the tokenizer is read, and no weights."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from permafrost.data.ragged import Counts, ranges
from permafrost.data.store.plan import CapturePlan
from permafrost.data.text import Text
from permafrost.extract.backbones.load import load_tokenizer
from permafrost.extract.backbones.locate import find
from permafrost.extract.tokenization.checks import check_texts, refuse_long_texts
from permafrost.extract.tokenization.rewording import reword
from permafrost.extract.tokenization.tokenize import tokenize, windowed


@dataclass(frozen=True, eq=False)
class TokenIds:
    """Token ids of texts, every window of theirs one after another."""

    offsets: Counts
    """``[window + 1]``: where the tokens of each begin."""

    spans: NDArray[np.int32]
    """``[token, 2]``: the characters that each covers, as :class:`~data.ragged.TokenLatents` has them."""

    starts: Counts
    """``[text + 1]``: where the windows of each text begin."""

    ids: NDArray[np.int32]
    """``[token]``."""

    token_type_ids: NDArray[np.int8] | None
    """``[token]``: which of two segments each counts to; None where there is one."""

    def rows(self, windows: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int8] | None]:
        """The ids of some windows, one after another; and the segment of each."""
        places = ranges(self.offsets[:-1][windows], np.diff(self.offsets)[windows])
        return self.ids[places], None if self.token_type_ids is None else self.token_type_ids[places]


def read_ids(plan: CapturePlan, texts: Sequence[Text]) -> TokenIds:
    """Tokenise ``texts`` as stage one does for the same plan.

    Raises:
        BackboneError: the backbone is not here, or has no tokenizer or one of another model.
        TextError: a text has no token, or does not fit as the plan wants it to.
        SpecError: the template alone fills ``max_tokens``, or texts of two segments have one, or are reworded.
    """
    check_texts(plan, texts)
    source = find(plan)
    tokenizer = load_tokenizer(source.tokenizer_files)
    windows, starts = windowed(tokenizer, texts, plan.max_tokens, plan.overlap)
    worded = [reword(str(text), plan.rewording) for text in windows] if plan.rewording else windows
    tokens = tokenize(tokenizer, worded, plan.template, plan.max_tokens, True, plan.overlap)
    source.check_ids(tokens.ids)
    if plan.truncation == "refuse" and (tokens.uncut > plan.max_tokens).any():
        refuse_long_texts(windows, tokens.uncut, plan)
    assert tokens.characters is not None
    return TokenIds(tokens.offsets, tokens.characters, starts, tokens.ids, tokens.token_type_ids)

"""Numbers of tokens of texts, without a model and without transformers."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from permafrost.data.plan.plan import ExtractSpec
from permafrost.data.text import Segments, Text
from permafrost.extract.backbones.locate import find_tokenizer
from permafrost.extract.backbones.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER = "tokenizer.json"


def token_lengths(backbone: str, texts: Sequence[Text], cache: str = ExtractSpec.cache) -> NDArray[np.int64]:
    """Return the number of tokens of each text, special tokens included, before any is cut.

    Args:
        backbone: as ``plan.backbone``.
        texts: texts, or pairs of segments.
        cache: as ``extract.cache``.

    Raises:
        BackboneError: the backbone cannot be found.
    """
    tokenizer = _tokenizer(find_tokenizer(backbone, cache))
    inputs = [(text.first, text.second) if isinstance(text, Segments) else text for text in texts]
    return np.array([len(encoding.ids) for encoding in tokenizer.encode_batch(inputs)], np.int64)


def _tokenizer(folder: Path) -> "Tokenizer":
    """Return the tokenizer of a folder; one that is saved whole needs no transformers, which are slow to import."""
    if not (folder / TOKENIZER).is_file():
        return load_tokenizer(folder)
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer

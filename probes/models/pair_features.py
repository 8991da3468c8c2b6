"""Features of pairs: cosines, Siamese features of two texts, and token matching between two segments.

Both texts of a pair go through one encoder, so cosines are symmetric in the two texts.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from permafrost.data.device.transfer import to_device
from permafrost.data.ragged import offsets_from_lengths

SCALE = 4.0
"""Factor of the best cosines as token features: states, which they are concatenated with, have deviation 1."""


def best_cosines(states: Tensor, lengths: Sequence[int], second: NDArray[np.bool_]) -> Tensor:
    """Return the highest cosine of every token with a token of the other segment; 0 if the text has one segment.

    Frozen states carry the similarity of a question's words to its context; a few thousand questions hardly teach it.

    Source: Chen et al., "Reading Wikipedia to Answer Open-Domain Questions" (2017), section 3.2, whose exact match of
    words is softened to the cosine of states.

    Args:
        states: ``[layer, token, width]``, text after text.
        lengths: ``[text]``, number of tokens of each text.
        second: ``[token]``, whether the token is in the second segment.

    Returns:
        ``[layer, token]``, without a gradient.
    """
    unit = functional.normalize(states.detach().float(), dim=-1)
    best = unit.new_zeros(unit.shape[:2])
    with torch.autocast(unit.device.type, enabled=False):
        for start, end in pairwise(offsets_from_lengths(np.array(lengths)).tolist()):
            in_second = second[start:end]
            if in_second.any() and not in_second.all():
                first, other = (
                    to_device(start + np.flatnonzero(chosen), unit.device) for chosen in (~in_second, in_second)
                )
                products = torch.bmm(unit[:, other], unit[:, first].transpose(1, 2))
                best[:, other], best[:, first] = products.amax(2), products.amax(1)
    return best


def cosines(first: Tensor, second: Tensor) -> Tensor:
    """Return the cosines of two texts: ``[..., row, width]`` twice -> ``[..., row]``, in ``[-1, 1]``.

    Equal vectors have cosine 1 exactly, zeros included; a vector of zeros has cosine 0 with every other vector.
    """
    return torch.where((first == second).all(-1), 1.0, torch.cosine_similarity(first, second, dim=-1))


def cosine_matrix(first: Tensor, second: Tensor) -> Tensor:
    """Return the cosines of all pairs: ``[..., row, width]`` and ``[..., column, width]`` -> ``[..., row, column]``.

    They are computed in float32: with a scale of 20, bfloat16 would round losses to two digits.
    """
    with torch.autocast(first.device.type, enabled=False):
        unit = [functional.normalize(texts.float(), dim=-1) for texts in (first, second)]
        return torch.matmul(unit[0], unit[1].mT)


def pair_features(first: Tensor, second: Tensor) -> Tensor:
    """Return ``[u, v, |u - v|, u * v]``: ``[..., width]`` twice -> ``[..., 4 width]``.

    Source: Conneau et al., "Supervised Learning of Universal Sentence Representations from Natural Language Inference
    Data" (2017), section 3.1.
    """
    return torch.cat([first, second, (first - second).abs(), first * second], dim=-1)


def difference_features(first: Tensor, second: Tensor) -> Tensor:
    """Return ``[u, v, |u - v|]``: ``[..., width]`` twice -> ``[..., 3 width]``.

    Source: Reimers and Gurevych, "Sentence-BERT" (2019), section 3, classification objective.
    """
    return torch.cat([first, second, (first - second).abs()], dim=-1)

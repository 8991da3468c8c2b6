"""Matching: how well each token of one segment is met in the other, as a question's words are in its context.

Frozen states know what is alike; a few thousand questions hardly teach a context to look for it.
"""
# MERGED DOCS:
# """Both sides of a pair through one encoder: what is the same on both sides is symmetric by construction."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from permafrost.data.ragged import bounds

SCALE = 4.0
"""What the cosines are multiplied by, so that they are heard beside states of deviation 1."""


def best_cosines(states: Tensor, lengths: Sequence[int], second: Tensor) -> Tensor:
    """The highest cosine of every token with a token of the other segment, layer by layer; 0 where there is no other.

    Source: Chen et al., "Reading Wikipedia to Answer Open-Domain Questions" (2017), section 3.2, whose exact match of
    words is softened to the cosine of states.

    Args:
        states: ``[layer, token, width]``, text after text.
        lengths: ``[text]``, how many tokens each has.
        second: ``[token]``, whether it is of the second segment.

    Returns:
        ``[layer, token]``, without a gradient.
    """
    unit = functional.normalize(states.detach().float(), dim=-1)
    found = torch.zeros(unit.shape[:2])
    with torch.autocast("cpu", enabled=False):
        for start, end in pairwise(bounds(np.array(lengths)).tolist()):
            here, of_second = torch.arange(start, end), second[start:end]
            first, other = here[~of_second], here[of_second]
            if len(first) and len(other):
                cosines = torch.bmm(unit[:, other], unit[:, first].transpose(1, 2))
                found[:, other], found[:, first] = cosines.amax(2), cosines.amax(1)
    return found


def cosines(first: Tensor, second: Tensor) -> Tensor:
    """Cosine of the two sides: ``[..., row, width]`` twice -> ``[..., row]``, in ``[-1, 1]``.

    Equal vectors have cosine 1 exactly, zeros included; a vector of zeros has cosine 0 with every other.
    """
    return torch.where((first == second).all(-1), 1.0, torch.cosine_similarity(first, second, dim=-1))


def pair_features(first: Tensor, second: Tensor) -> Tensor:
    """``[u, v, |u - v|, u * v]``: ``[..., width]`` twice -> ``[..., 4 width]``.

    Source: Conneau et al., "Supervised Learning of Universal Sentence Representations from Natural Language Inference
    Data" (2017), section 3.1.
    """
    return torch.cat([first, second, (first - second).abs(), first * second], dim=-1)


def difference_features(first: Tensor, second: Tensor) -> Tensor:
    """``[u, v, |u - v|]``: ``[..., width]`` twice -> ``[..., 3 width]``.

    Source: Reimers and Gurevych, "Sentence-BERT" (2019), section 3, classification objective.
    """
    return torch.cat([first, second, (first - second).abs()], dim=-1)

"""Both sides of a pair through one encoder: what is the same on both sides is symmetric by construction."""

import torch
from torch import Tensor


def layer_cosines(first: Tensor, second: Tensor) -> Tensor:
    """Cosine of the two sides, layer by layer: ``[layer, row, width]`` twice -> ``[layer, row]``, in ``[-1, 1]``.

    Equal vectors have cosine 1 exactly, zeros included; a vector of zeros has cosine 0 with every other.
    """
    return torch.where((first == second).all(-1), 1.0, torch.cosine_similarity(first, second, dim=-1))


def pair_features(first: Tensor, second: Tensor) -> Tensor:
    """``[u, v, |u - v|, u * v]``: ``[row, width]`` twice -> ``[row, 4 width]``.

    Source: Conneau et al., "Supervised Learning of Universal Sentence Representations from Natural Language Inference
    Data" (2017), section 3.1.
    """
    return torch.cat([first, second, (first - second).abs(), first * second], dim=-1)

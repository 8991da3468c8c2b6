"""Both sides of a pair through one encoder: what is the same on both sides is symmetric by construction."""

import torch
from torch import Tensor


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

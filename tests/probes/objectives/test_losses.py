"""Losses against values computed by hand, and where they end: perfect batches, single rows, members side by side."""

import math

import pytest
import torch

from permafrost.probes.objectives.losses import LOSSES, MIN_BATCH_ROWS, SMALLEST_VARIANCE, log_variance

SCORES = ["mse", "log_variance"]
FLOATS = [*SCORES, "binary_cross_entropy"]
"""Losses whose targets are no indices."""

BY_HAND = {
    "mse": (torch.tensor([0.0, 1.0, 1.0]), torch.tensor([0.0, 0.0, 3.0]), 5 / 3),  # (0 + 1 + 4) / 3
    "log_variance": (  # residuals 0, 1, -2; mean -1/3; squares 1/9 + 16/9 + 25/9 over 2
        torch.tensor([0.0, 1.0, 1.0]),
        torch.tensor([0.0, 0.0, 3.0]),
        math.log(7 / 3),
    ),
    "cross_entropy": (  # probabilities of the right classes: 3/4 and 1/2
        torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]]),
        torch.tensor([0, 1]),
        (math.log(4 / 3) + math.log(2)) / 2,
    ),
    "binary_cross_entropy": (  # probabilities of what is true of each label: 3/4, 1/2, 1/4 and 1/2
        torch.tensor([[math.log(3.0), 0.0], [math.log(3.0), 0.0]]),
        torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
        (math.log(4 / 3) + math.log(2) + math.log(4) + math.log(2)) / 4,
    ),
    "span": (  # one text of three tokens: the start has 3/5 and the end 1/2
        torch.tensor([[[0.0, 0.0], [math.log(3.0), 0.0], [0.0, math.log(2.0)]]]),
        torch.tensor([[1, 2]]),
        (math.log(5 / 3) + math.log(2)) / 2,
    ),
    "multiple_negatives_ranking": (  # 20 times the cosines: log 3 and 0 of two, and 0 of the one that is left of two
        torch.tensor([[math.log(3.0) / 20, 0.0], [-1000.0, 0.5]]),
        torch.tensor([0, 1]),
        math.log(4 / 3) / 2,
    ),
}


def drawn(name: str, members: int, orders: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions of members, and targets: one order of rows for all, or one for each."""
    if name in ("cross_entropy", "multiple_negatives_ranking"):
        return torch.randn(members, 8, 3), torch.randint(3, (orders, 8))
    if name == "binary_cross_entropy":
        return torch.randn(members, 8, 3), torch.randint(2, (orders, 8, 3)).float()
    if name == "span":
        return torch.randn(members, 4, 6, 2), torch.randint(6, (orders, 4, 2))
    return torch.randn(members, 8), torch.randn(orders, 8)


@pytest.mark.parametrize("name", LOSSES)  # a new loss without a value by hand fails here
def test_a_loss_has_the_value_computed_by_hand(name):
    prediction, target, expected = BY_HAND[name]
    assert LOSSES[name](prediction, target).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_equals_finite_differences(name):
    prediction, target, _ = BY_HAND[name]
    prediction = prediction.double().requires_grad_()
    target = target.double() if name in FLOATS else target
    assert torch.autograd.gradcheck(LOSSES[name], (prediction, target))


@pytest.mark.parametrize(
    ("name", "orders"), [(name, orders) for name in LOSSES for orders in (1, 3) if (name, orders) != ("span", 3)]
)  # members that read tokens take rows in one order
def test_members_side_by_side_keep_their_own_loss(name, orders):
    predictions, targets = drawn(name, 3, orders)
    alone = [LOSSES[name](prediction, targets[at % orders]) for at, prediction in enumerate(predictions)]
    torch.testing.assert_close(LOSSES[name](predictions, targets), torch.stack(alone))


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_of_one_member_has_no_gradient_in_another(name):
    predictions, targets = drawn(name, 3, 1)
    predictions.requires_grad_()
    LOSSES[name](predictions, targets)[1].backward()
    assert (predictions.grad != 0).flatten(1).any(1).tolist() == [False, True, False]


def test_the_loss_of_a_span_is_the_mean_over_texts_of_two_choices_among_those_that_can_be():
    logits, target = drawn("span", 1, 1)
    logits[:, 0, 4:] = logits[:, 2, 1] = -torch.inf
    target[0, 0], target[0, 2] = torch.tensor([1, 3]), torch.tensor([0, 2])
    slow = []
    for text in range(4):
        for end in range(2):
            chosen = logits[0, text, :, end].double().exp()
            slow.append(-math.log(chosen[target[0, text, end]] / chosen.sum()))
    torch.testing.assert_close(LOSSES["span"](logits, target), torch.tensor([sum(slow) / 8]))


@pytest.mark.parametrize("orders", [1, 3])
def test_the_loss_of_label_sets_is_the_mean_over_rows_and_labels_of_a_choice_between_two(orders):
    logits, target = drawn("binary_cross_entropy", 3, orders)
    slow = []
    for member in range(3):
        costs = []
        for row in range(8):
            for label in range(3):
                probability = 1 / (1 + math.exp(-logits[member, row, label].item()))
                true = bool(target[member % orders, row, label])
                costs.append(-math.log(probability if true else 1 - probability))
        slow.append(sum(costs) / len(costs))
    torch.testing.assert_close(LOSSES["binary_cross_entropy"](logits, target), torch.tensor(slow))
    whole = torch.nn.BCEWithLogitsLoss()
    by_torch = [whole(logits[member], target[member % orders]) for member in range(3)]
    torch.testing.assert_close(LOSSES["binary_cross_entropy"](logits, target), torch.stack(by_torch))


def test_log_variance_does_not_see_an_offset():
    prediction, target = torch.randn(8).double(), torch.randn(8).double()
    torch.testing.assert_close(log_variance(prediction + 5, target), log_variance(prediction, target))


@pytest.mark.parametrize("offset", [0.0, 0.25])
def test_log_variance_of_a_perfect_batch_is_finite_and_so_is_its_gradient(offset):
    target = torch.rand(8)
    prediction = (target + offset).requires_grad_()
    loss = log_variance(prediction, target)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(SMALLEST_VARIANCE), abs=1e-3)  # float32 leaves a trace of the offset
    assert prediction.grad.isfinite().all()


@pytest.mark.parametrize("spread", [0.0, 1e-4])
def test_the_gradient_of_log_variance_near_a_perfect_batch_equals_finite_differences(spread):
    target = torch.rand(8).double()
    prediction = (target + spread * torch.randn(8).double()).requires_grad_()  # a variance about the floor's
    assert torch.autograd.gradcheck(log_variance, (prediction, target), eps=1e-8, rtol=1e-2, atol=1e-2)
    if spread:
        (gradient,) = torch.autograd.grad(log_variance(prediction, target), prediction)
        assert gradient.abs().max() > 100  # far from what the tolerance would let pass


def test_log_variance_refuses_a_single_row():
    assert MIN_BATCH_ROWS["log_variance"] == 2
    with pytest.raises(ValueError, match="at least 2 rows, got 1"):
        log_variance(torch.zeros(3, 1), torch.zeros(1))

"""Objectives: the losses and answers of tokens equal slow loops, whatever is read together; and toys are learnt."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from permafrost.data.corpora.corpus import Corpus, Rows
from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.config.train import TrainSpec
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.inputs.token_inputs import TokenInputs
from permafrost.probes.models.context import CONTEXTS
from permafrost.probes.models.probe import Probe, layout_for, stack
from permafrost.probes.models.shared_reads import shared_reads
from permafrost.probes.objectives import base, tokens
from permafrost.probes.objectives.base import RowObjective
from permafrost.probes.objectives.heads import objective_of, predictions
from permafrost.probes.objectives.losses import LOSSES
from permafrost.probes.objectives.tokens import IMPOSSIBLE_LOGIT, MAX_ANSWER_TOKENS, SpanObjective, WordObjective
from permafrost.probes.tasks.answers import null_scores
from permafrost.probes.tasks.registry import TASKS
from tests.support.marks import slow_but_first
from tests.support.synthetic import WIDE, answered, classed, inputs, labelled, moved, scored, tagged
from tests.support.trainings import build, member_config, scorer_of, train_all

EVERY = pytest.mark.parametrize("context", ["none", *CONTEXTS])
ONE_ORDER = np.zeros(1, np.int64)


def probe_of(found: ProbeInputs, corpus: Corpus, **settings) -> Probe:
    """A token probe of one member that has left its starting point."""
    spec = ProbeSpec(**({"encoder": "none", "context_width": 6} | settings))
    layout = layout_for(spec, [tuple(range(len(found.columns)))], found.widths, tokens=True)
    return moved(build(spec, corpus.kind, len(corpus.labels), 1, layout)).eval()


def read_alone(probe: Probe, found: TokenInputs, window: int) -> torch.Tensor:
    """``[token, output]`` of one window by itself."""
    how = shared_reads(probe.layout)
    return probe(found.ragged(how, np.array([window])), how)[0].detach()


def loss_of(probe: Probe, found: ProbeInputs, rows: Rows, taken: list[int]) -> torch.Tensor:
    name = "span" if isinstance(objective_of(probe, found, rows), SpanObjective) else "cross_entropy"
    how = shared_reads(probe.layout)
    return objective_of(probe, found, rows).loss(probe, how, np.array([taken]), ONE_ORDER, name)


def token_of(found: TokenInputs, window: int, character: int) -> int:
    """Within the window, -1 where none covers it."""
    spans = found.tokens.spans[found.tokens.offsets[window] : found.tokens.offsets[window + 1]]
    return next((at for at, (first, last) in enumerate(spans) if first <= character < last), -1)


def words_of(found: TokenInputs, rows: Rows, row: int) -> list[tuple[int, int]]:
    """The token of every word of a row, and its tag."""
    marks, text = rows.spans, rows.texts[row, 0]
    own = slice(marks.offsets[row], marks.offsets[row + 1])
    spans, codes = marks.characters[own], marks.codes[own]
    return [(token_of(found, text, span[0]), code) for span, code in zip(spans, codes, strict=True)]


@EVERY
@pytest.mark.parametrize("room", [99, 6])
def test_the_loss_of_tags_is_the_mean_over_words_that_have_a_token(context, room):
    found, corpus = tagged(room=room)
    rows, probe = corpus.split("train"), probe_of(found, corpus, context=context)
    taken, costs = [3, 0, 11, 7], []
    for row in taken:
        logits = read_alone(probe, found, rows.texts[row, 0]).double()
        for token, code in words_of(found, rows, row):
            if token >= 0:
                costs.append(float(torch.logsumexp(logits[token], 0) - logits[token, code]))
    assert loss_of(probe, found, rows, taken).tolist() == pytest.approx([np.mean(costs)], rel=1e-5)


@EVERY
def test_a_batch_without_a_word_that_has_a_token_costs_nothing(context):
    found, corpus = tagged()
    found = replace(found, tokens=replace(found.tokens, spans=np.full_like(found.tokens.spans, -1)))
    probe = probe_of(found, corpus, context=context)
    loss = loss_of(probe, found, corpus.split("train"), [3, 0])
    loss.sum().backward()
    assert loss.tolist() == [0]
    assert all(not part.grad.any() for part in probe.parameters() if part.grad is not None)


@EVERY
def test_what_is_said_of_a_word_is_read_off_its_first_token_and_a_cut_word_is_outside(context):
    found, corpus = tagged(room=6)
    rows, probe = corpus.split("validation"), probe_of(found, corpus, context=context)
    with torch.inference_mode():
        said = predictions(probe, found, rows)
    assert said.shape == (1, len(rows.spans.codes), len(corpus.labels))
    answers = scorer_of(corpus, "validation").decode(said[0])
    cut = 0
    for row in range(len(rows)):
        logits = read_alone(probe, found, rows.texts[row, 0])
        for place, (token, _) in enumerate(words_of(found, rows, row), rows.spans.offsets[row]):
            if token >= 0:
                np.testing.assert_allclose(said[0, place], logits[token], rtol=1e-4, atol=1e-5)
            else:
                cut += 1
                assert said[0, place].tolist() == [0, *[np.float32(IMPOSSIBLE_LOGIT)] * 4]
                assert answers[place] == 0
    assert cut > 0


@EVERY
def test_the_loss_of_spans_is_the_mean_over_windows_of_two_choices_among_the_context(context):
    found, corpus = answered()
    rows, probe = corpus.split("train"), probe_of(found, corpus, context=context)
    taken, costs = [5, 2, 9, 0], []
    for row in taken:
        first, last = rows.spans.characters[rows.spans.offsets[row]]
        text = rows.texts[row, 0]
        for window in range(found.tokens.starts[text], found.tokens.starts[text + 1]):
            logits = read_alone(probe, found, window).double()
            spans = found.tokens.spans[found.tokens.offsets[window] : found.tokens.offsets[window + 1]]
            choices = [0, *(at for at, span in enumerate(spans) if span[0] >= 0)]
            ends = [token_of(found, window, first), token_of(found, window, last - 1)]
            for end, token in enumerate(ends if min(ends) >= 0 else [0, 0]):
                costs.append(float(torch.logsumexp(logits[choices, end], 0) - logits[token, end]))
    assert loss_of(probe, found, rows, taken).tolist() == pytest.approx([np.mean(costs)], rel=1e-5)


@EVERY
def test_an_answer_is_the_likeliest_span_of_all_windows_and_within_the_context(context):
    found, corpus = answered()
    rows, probe = corpus.split("validation"), probe_of(found, corpus, context=context)
    with torch.inference_mode():
        (said,) = predictions(probe, found, rows)
    won = []
    for row, text in enumerate(rows.texts[:, 0]):
        best, null = (0.0, -1, -1, -1), 0.0
        for window in range(found.tokens.starts[text], found.tokens.starts[text + 1]):
            spans = found.tokens.spans[found.tokens.offsets[window] : found.tokens.offsets[window + 1]]
            choices = [0, *(at for at, span in enumerate(spans) if span[0] >= 0)]
            shares = torch.softmax(read_alone(probe, found, window)[choices], 0)
            for low in range(1, len(choices)):
                for high in range(low, min(low + MAX_ANSWER_TOKENS, len(choices))):
                    likely = float(shares[low, 0] * shares[high, 1])
                    best = max(best, (likely, spans[choices[low]][0], spans[choices[high]][1], window))
            null = min(null, float(shares[0].log().sum()))
        assert said[row].tolist() == pytest.approx([best[1], best[2], best[0], null], rel=1e-4)
        assert 0 <= said[row, 0] < said[row, 1] <= len(corpus.texts[text].second)
        won.append(best[3] - found.tokens.starts[text])
    assert len(set(won)) > 1  # not the first window of all


def test_where_no_token_of_the_context_was_read_nothing_is_said():
    found, corpus = answered()
    found = replace(found, tokens=replace(found.tokens, spans=np.full_like(found.tokens.spans, -1)))
    (said,) = predictions(probe_of(found, corpus), found, corpus.split("validation"))
    assert (said == [-1, -1, 0, 0]).all()
    answers = scorer_of(corpus, "validation").decode(said)
    assert scorer_of(corpus, "validation").value("f1", answers) == 0


TOYS = {"tags": tagged, "answers": answered}


@EVERY
@pytest.mark.parametrize("kind", TOYS)
def test_what_is_said_and_what_it_costs_do_not_depend_on_what_is_read_together(kind, context, monkeypatch):
    found, corpus = TOYS[kind]()
    rows, probe = corpus.split("train"), probe_of(found, corpus, context=context)
    with torch.inference_mode():
        at_once = predictions(probe, found, rows)
        order = np.random.default_rng(3).permutation(len(rows))
        moved_rows = predictions(probe, found, rows.select(order))
        monkeypatch.setattr(base, "CHUNK_BYTES", 2 * WIDE * 4 * 20)  # twenty tokens
        in_chunks = predictions(probe, found, rows)
    np.testing.assert_allclose(in_chunks, at_once, rtol=1e-4, atol=1e-5)
    own = np.diff(rows.spans.offsets)[order] if kind == "tags" else np.ones(len(rows), np.int64)
    starts = rows.spans.offsets[:-1][order] if kind == "tags" else order
    places = np.concatenate([np.arange(at, at + size) for at, size in zip(starts, own, strict=True)])
    np.testing.assert_allclose(moved_rows, at_once[:, places], rtol=1e-4, atol=1e-5)
    first, second = loss_of(probe, found, rows, [1, 4, 6]), loss_of(probe, found, rows, [6, 1, 4])
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("kind", TOYS)
def test_every_row_is_read_in_one_chunk_and_no_other(kind, monkeypatch):
    found, corpus = TOYS[kind]()
    probe, objective = probe_of(found, corpus), objective_of(probe_of(found, corpus), found, corpus.split("train"))
    for limit in (1, 15, 10**6):
        monkeypatch.setattr(base, "CHUNK_BYTES", 2 * WIDE * 4 * limit)
        chunks = list(tokens.chunks(found, probe, objective.windows))
        assert sorted(np.concatenate(chunks)) == list(range(len(objective.windows)))
        lengths = found.tokens.lengths[objective.windows]
        assert all(lengths[chunk][:-1].sum() <= limit for chunk in chunks)


def result(found: ProbeInputs, corpus: Corpus, seed: int = 0, **settings) -> float:
    """The best validation metric of a training."""
    spec = ProbeSpec(**({"encoder": "none", "context_width": 16} | settings))
    recipe = Recipe(probe=spec, train=TrainSpec(epochs=25, batch_rows=8, learning_rate=0.02, patience=25))
    (trained,) = train_all([member_config(recipe, found, corpus, seed)])
    return trained.history.best_value


@EVERY
def test_tags_that_stand_in_the_states_are_learnt(context):
    assert result(*tagged(60), context=context) > 0.85  # F1 of whole entities


def test_tags_that_stand_a_word_further_on_take_a_context():
    found, corpus = tagged(80, shift=1)
    alone, beside = result(found, corpus), result(found, corpus, context="bilstm")
    assert alone < 0.4
    assert beside > alone + 0.2


@EVERY
def test_answers_that_stand_in_the_states_are_learnt(context):
    assert result(*answered(60), context=context) > 0.7  # F1 of words


def test_that_a_question_has_no_answer_is_learnt():
    found, corpus = answered(90, unanswered=2)
    recipe = Recipe(
        probe=ProbeSpec(encoder="none", context="transformer", context_width=16),
        train=TrainSpec(epochs=25, batch_rows=8, learning_rate=0.02, patience=25),
    )
    (trained,) = train_all([member_config(recipe, found, corpus)])
    said = predictions(trained.probe.eval(), found, corpus.split("validation"))[0]
    abstains = null_scores(said) > 0
    missing = corpus.split("validation").spans.are_missing
    assert 0.3 < missing.mean() < 0.7
    assert (abstains == missing).mean() > 0.8


@pytest.mark.parametrize("mixer", ["last", "softmax", "concat", "attention", "self_attention", "unified"])
@pytest.mark.parametrize("kind", TOYS)
def test_every_mixer_of_codes_reads_tokens(kind, mixer):
    found, corpus = TOYS[kind](45)
    assert result(found, corpus, mixer=mixer, encoder="linear") > 0.5


@pytest.mark.parametrize("encoder", slow_but_first(["mlp", "linear", "lowrank"]))
def test_every_encoder_reads_tokens(encoder):
    assert result(*tagged(45), encoder=encoder, dropout=0.1, noise=0.1, context="transformer") > 0.5


@pytest.mark.parametrize("kind", ["score", "class", "labels"])
def test_rows_that_are_labelled_as_a_whole_cost_and_say_what_the_probe_says_of_them(kind):
    found = inputs()
    corpus = {"score": scored, "class": classed, "labels": labelled}[kind](found)
    rows = corpus.split("train")
    spec = ProbeSpec()
    probe = moved(build(spec, kind, 3, 2, layout_for(spec, [(0, 1, 2, 3)], found.widths))).eval()
    objective, how = objective_of(probe, found, rows), shared_reads(probe.layout)
    assert type(objective) is RowObjective
    name = TASKS[kind].loss
    taken = [4, 0, 9]
    sides = [found.values[:, column] for column in rows.texts[taken].T]
    target = torch.from_numpy(rows.targets[taken])
    expected = LOSSES[name](probe(sides, how), target if kind == "class" else target.float())
    torch.testing.assert_close(objective.loss(probe, how, np.array([taken]), ONE_ORDER, name), expected)
    torch.testing.assert_close(torch.from_numpy(objective.predict(probe))[:, taken], probe(sides, how).detach())


def test_every_kind_of_rows_has_an_objective_of_its_own():
    for kind, objective in (("tags", WordObjective), ("answers", SpanObjective)):
        found, corpus = TOYS[kind]()
        assert type(objective_of(probe_of(found, corpus), found, corpus.split("train"))) is objective


@EVERY
def test_members_answer_together_by_the_mean_of_the_probabilities_that_they_give(context):
    found, corpus = answered()
    rows = corpus.split("validation")
    first, second = (moved(probe_of(found, corpus, context=context), seed=seed).eval() for seed in (3, 4))
    said = objective_of(first, found, rows).predict_mean(stack([first, second]))
    twice = objective_of(first, found, rows).predict_mean(stack([first, first]))
    np.testing.assert_allclose(twice, objective_of(first, found, rows).predict(first)[0], rtol=1e-5)
    assert (said[:, :2] != twice[:, :2]).any()
    for row, text in enumerate(rows.texts[:, 0]):
        best, null = (0.0, -1, -1), 0.0
        for window in range(found.tokens.starts[text], found.tokens.starts[text + 1]):
            spans = found.tokens.spans[found.tokens.offsets[window] : found.tokens.offsets[window + 1]]
            choices = [0, *(at for at in range(1, len(spans)) if spans[at, 0] >= 0)]
            shares = torch.stack([torch.softmax(read_alone(one, found, window)[choices], 0) for one in (first, second)])
            start, end = shares.mean(0).T.tolist()
            null = min(null, float(np.log(start[0] * end[0])))
            for low in range(1, len(choices)):
                for high in range(low, min(len(choices), low + MAX_ANSWER_TOKENS)):
                    likely = start[low] * end[high]
                    best = max(best, (likely, int(spans[choices[low], 0]), int(spans[choices[high], 1])))
        np.testing.assert_allclose(said[row], [best[1], best[2], best[0], null], rtol=1e-4)

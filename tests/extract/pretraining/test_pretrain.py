"""Pretraining: the loss is the ordinary one, an interruption leaves no trace, and what comes of it is a model."""

import gzip
import json
import math
import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import AddedToken

from permafrost.data.corpora.records import CorpusError
from permafrost.data.digests import DamageError
from permafrost.data.errors import CheckpointError, InputError
from permafrost.data.language.record import LanguageModel, read_record
from permafrost.data.language.spec import LanguageSpec
from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.progress import NoProgress
from permafrost.data.readers.plain_text import Documents
from permafrost.data.spec import SpecError
from permafrost.extract.backbones.identity import backbone_digests
from permafrost.extract.backbones.tokenizer import load_tokenizer
from permafrost.extract.extraction import extract
from permafrost.extract.pretraining.blocks import IGNORED, BlockDataset, Frame, Masking, cut_blocks, draw_held_out
from permafrost.extract.pretraining.pretrain import blocks_of, make_language_model, pretrain
from permafrost.extract.pretraining.token_file import TokenFile, blocks_on_disk
from permafrost.extract.pretraining.trainer import mark_complete, newest_checkpoint
from permafrost.extract.pretraining.vocabulary import read_vocabulary
from tests.support.damage import flipped, resigned
from tests.support.models.backbones import WORDS, word_tokenizer
from tests.support.real import real_data, real_model

ROOT = Path(__file__).parents[3]
OBJECTIVES = ("masked", "causal")


@pytest.fixture(scope="module")
def vocabularies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder with a tokenizer for each objective: with a mask and ends around a text, and without either."""
    folders = {}
    for objective in OBJECTIVES:
        folder = folders[objective] = tmp_path_factory.mktemp(objective)
        tokenizer = word_tokenizer(special=objective == "masked")
        if objective == "masked":
            tokenizer.add_special_tokens([AddedToken("<mask>")])
        tokenizer.save(str(folder / "tokenizer.json"))
    return folders


@pytest.fixture
def spec(vocabularies: dict[str, Path]) -> LanguageSpec:
    return LanguageSpec(
        vocabulary=str(vocabularies["masked"]),
        blocks=2,
        width=16,
        heads=2,
        inner=32,
        block_tokens=16,
        batch_rows=4,
        epochs=2,
        learning_rate=5e-3,
        held_out=0.2,
        compute_dtype="float32",
        checkpoint_steps=4,
    )


def stories(count: int = 40, seed: int = 0) -> list[str]:
    """Documents in which every word says which comes next."""
    random = np.random.default_rng(seed)
    starts, lengths = random.integers(0, len(WORDS), count), random.integers(8, 20, count)
    return [
        " ".join(WORDS[(start + step) % len(WORDS)] for step in range(length))
        for start, length in zip(starts, lengths, strict=True)
    ]


class StopError(Exception):
    """The machine stops."""


class Stopping(NoProgress):
    """Ends a training once so many steps are done."""

    def __init__(self, steps: int, end: Any = None) -> None:
        self.left, self.end, self.notes = steps, end, list[str]()

    def note(self, message: str) -> None:
        self.notes.append(message)

    @contextmanager
    def bar(self, what: str, total: int) -> Iterator[Any]:
        def advance(steps: int) -> None:
            self.left -= steps
            if self.left <= 0:
                if self.end:
                    self.end()
                raise StopError

        yield advance


def losses(done: LanguageModel) -> list[float]:
    return [line["loss"] for line in done.losses]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_loss_is_the_ordinary_one_of_the_whole_model(objective, spec, vocabularies, tmp_path):
    from permafrost.extract.pretraining.trainer import collate, prediction_loss

    spec = replace(spec, objective=objective, vocabulary=str(vocabularies[objective]))
    vocabulary = read_vocabulary(spec)
    masking = vocabulary.masking(spec.mask_share) if objective == "masked" else None
    objectives = BlockDataset(blocks_of(spec, vocabulary, stories(), tmp_path)[0], 1, 0, masking)
    batch = collate([objectives[row] for row in range(4)])
    model = make_language_model(spec, vocabulary).eval()
    whole = batch["labels"] if objective == "masked" else batch["input_ids"]  # it shifts what follows by itself
    expected = model(batch["input_ids"], labels=whole).loss
    total, count = prediction_loss(model, **batch)
    torch.testing.assert_close(total / count, expected)
    assert count == (4 * 2 if objective == "masked" else 4 * 15)
    expected.backward()
    ordinary = {name: part.grad.clone() for name, part in model.named_parameters()}
    model.zero_grad()
    (total / count).backward()
    for name, part in model.named_parameters():
        torch.testing.assert_close(part.grad, ordinary[name], rtol=1e-4, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_it_learns_and_leaves_a_backbone_that_extraction_and_transformers_read(objective, spec, vocabularies, tmp_path):
    from transformers import AutoModel, AutoTokenizer

    spec = replace(spec, objective=objective, vocabulary=str(vocabularies[objective]))
    spec = replace(spec, epochs=16, batch_rows=8, width=32, inner=64, mask_share=0.3, dropout=0.0)
    folder = tmp_path / "models" / "small"
    done = pretrain(spec, [" ".join([WORDS[number % len(WORDS)]] * 28) for number in range(100)], folder)
    assert len(done.losses) == math.ceil(done.blocks * 16 / 8)
    assert losses(done)[0] == pytest.approx(math.log(46), rel=0.1)
    assert losses(done)[-1] < done.loss + 1 < 0.7 * math.log(len(WORDS))  # of words that say nothing of each other
    assert done.perplexity == pytest.approx(math.exp(done.loss))
    assert len(done.guessed) == done.held_out > 1
    sums, counts = np.array(done.guessed).T
    assert done.loss == pytest.approx(sums.sum() / counts.sum())
    assert set(counts) == {15 if objective == "causal" else 5}  # of 16 tokens the first is not guessed; 0.3 are masked
    assert read_record(folder) == done
    assert sorted(path.name for path in folder.parent.iterdir()) == ["small"]

    model, loading = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert set(loading["missing_keys"]) <= {"pooler.dense.weight", "pooler.dense.bias"}
    text = "the small dog runs"
    ids = load_tokenizer(Path(spec.vocabulary)).encode(text).ids
    assert AutoTokenizer.from_pretrained(folder)(text)["input_ids"] == ids
    plan = CapturePlan(backbone=str(folder), max_tokens=16, compute_dtype="float32", stored_dtype="float32")
    found = extract(plan, [text], ExtractSpec(cache=str(tmp_path / "cache"), device="cpu"))
    assert found.columns == {"mean": (0, 1, 2)}
    hidden = model.eval()(torch.tensor([ids]), output_hidden_states=True).hidden_states[1]
    np.testing.assert_allclose(found.store.read([text], "mean", [1])[0, 0], hidden[0].mean(0).detach(), atol=1e-5)


@pytest.mark.slow
def test_the_same_spec_and_texts_give_the_same_losses_and_another_seed_others(spec, tmp_path):
    first, again = (pretrain(spec, stories(), tmp_path / name) for name in ("first", "again"))
    assert losses(first) == losses(again)
    assert first.loss == again.loss
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("first", "again")]
    assert weights[0] == weights[1]
    assert losses(pretrain(replace(spec, seed=1), stories(), tmp_path / "other")) != losses(first)


@pytest.mark.slow
def test_an_interrupted_pretraining_goes_on_from_its_checkpoint_to_the_same_end(spec, tmp_path):
    whole = pretrain(spec, stories(), tmp_path / "whole")
    folder = tmp_path / "broken"
    for stop, resumed in ((6, 0), (7, 4), (13, 4), (15, 12)):
        stopping = Stopping(stop)
        with pytest.raises(StopError):
            pretrain(spec, stories(), folder, stopping)
        assert stopping.notes[0].endswith(f"resuming from step {resumed}" if resumed else "float32 on cpu")
        assert not folder.exists()
    done = pretrain(spec, stories(), folder)
    assert losses(done) == losses(whole)
    assert done.loss == whole.loss
    assert (folder / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "whole"]


@pytest.mark.slow
def test_a_killed_process_leaves_what_the_next_one_needs(spec, tmp_path):
    folder = tmp_path / "killed"
    code = (
        "import os, signal, sys; sys.path[:0] = ['.']\n"
        "from pathlib import Path\n"
        "from permafrost.data.language.spec import LanguageSpec\n"
        "from permafrost.extract.pretraining.pretrain import pretrain\n"
        "from tests.extract.pretraining.test_pretrain import Stopping, stories\n"
        "kill = lambda: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"pretrain({spec!r}, stories(), Path({str(folder)!r}), Stopping(9, kill))"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    died = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=120, env=environment, check=False)
    assert died.returncode == -signal.SIGKILL
    assert losses(pretrain(spec, stories(), folder)) == losses(pretrain(spec, stories(), tmp_path / "whole"))


def test_a_checkpoint_that_is_not_whole_is_passed_over(tmp_path):
    for step in (4, 8, 12):
        (folder := tmp_path / f"checkpoint-{step}").mkdir()
        (folder / "model.safetensors").write_bytes(b"weights")
        if step < 12:
            mark_complete(folder)
    (tmp_path / "checkpoint-8" / "model.safetensors").write_bytes(b"other")
    told = Stopping(0)
    assert newest_checkpoint(tmp_path, told) == tmp_path / "checkpoint-4"
    assert [note.split()[0] for note in told.notes] == [str(tmp_path / f"checkpoint-{step}") for step in (12, 8)]
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-4"]


def test_a_checkpoint_that_would_run_code_is_not_let(spec, tmp_path):
    class Hostile:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    with pytest.raises(StopError):
        pretrain(spec, stories(), tmp_path / "model", Stopping(6))
    checkpoint = tmp_path / "model.checkpoints" / "checkpoint-4"
    torch.save({"state": Hostile()}, checkpoint / "optimizer.pt")
    mark_complete(checkpoint)
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        pretrain(spec, stories(), tmp_path / "model")
    assert not (tmp_path / "ran").exists()


def test_checkpoints_of_another_spec_or_text_are_refused_by_what_differs(spec, tmp_path):
    folder = tmp_path / "model"
    with pytest.raises(StopError):
        pretrain(spec, stories(), folder, Stopping(6))
    with pytest.raises(CheckpointError, match=r"another pretraining \(epochs = 2 there, 3 here; another text\)"):
        pretrain(replace(spec, epochs=3), stories(41), folder)
    pretrain(replace(spec, checkpoint_steps=5), stories(), folder)


def test_a_model_is_never_overwritten_and_never_made_twice(spec, tmp_path):
    with pytest.raises(InputError, match="exists already"):
        pretrain(spec, stories(), tmp_path)
    done = pretrain(spec, stories(), tmp_path / "model")
    assert pretrain(replace(spec, compute_dtype="auto"), stories(), tmp_path / "model") == done
    with pytest.raises(InputError, match=r"another pretraining \(seed = 0 there, 1 here; another text\)"):
        pretrain(replace(spec, seed=1), stories(41), tmp_path / "model")


def test_a_loss_that_is_no_number_ends_the_pretraining_with_its_step_and_what_to_try(spec, tmp_path):
    with pytest.raises(SpecError, match=r"became (nan|inf) at step \d of \d+; lower language.learning_rate or raise"):
        pretrain(replace(spec, learning_rate=1e30, warmup=0), stories(), tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_text_that_fills_no_block_is_refused(spec, tmp_path):
    with pytest.raises(CorpusError, match=r"5 tokens in 1 documents to learn from do not fill one block"):
        pretrain(replace(spec, held_out=0), ["the small brown dog runs"], tmp_path / "model")
    with pytest.raises(CorpusError, match="held out do not fill one block"):
        pretrain(replace(spec, held_out=0.001), stories(), tmp_path / "model")


def test_a_vocabulary_that_does_not_fit_is_refused(spec, vocabularies, tmp_path):
    for changed, message in (
        ({"vocabulary": str(vocabularies["causal"])}, "has no mask token"),
        ({"vocabulary_size": 40}, r"vocabulary_size = 40, but the ids of .* go up to 46; set it to 0"),
        ({"vocabulary": ""}, "vocabulary is empty, so one is learned: .* got 0"),
        ({"vocabulary": str(tmp_path)}, "holds no tokenizer"),
    ):
        with pytest.raises(InputError, match=message):
            pretrain(replace(spec, **changed), stories(), tmp_path / "model")


@pytest.mark.parametrize(
    ("field", "value"), [("heads", 3), ("epochs", 0), ("block_tokens", 4), ("mask_share", 1.0), ("clip", 0.0)]
)
def test_a_spec_that_cannot_be_is_refused(field, value):
    with pytest.raises(SpecError, match=field):
        LanguageSpec(**{field: value})


@pytest.mark.parametrize("value", [{"learning_rate": math.inf}, {"learning_rate": 0.0}, {"weight_decay": math.nan}])
def test_a_rate_that_is_no_finite_number_is_refused(value, spec):
    with pytest.raises(SpecError, match=r"learning_rate and clip must be positive, weight_decay not negative"):
        replace(spec, **value)


@pytest.mark.parametrize("damage", [{"losses": [{"step": 1}]}, {"guessed": [[1.0]]}, {"guessed": [[math.nan, 2]]}])
def test_a_record_that_is_none_is_refused(damage, spec, tmp_path):
    folder = tmp_path / "model"
    pretrain(spec, stories(), folder)
    record = json.loads((folder / "pretraining.json").read_text())
    resigned(folder, record | damage)
    with pytest.raises(InputError, match=r"exists already and is no result of a pretraining"):
        pretrain(spec, stories(), folder)


def test_no_flipped_bit_of_a_model_folder_is_taken_for_what_was_pretrained(spec, tmp_path):
    folder = tmp_path / "model"
    done = pretrain(replace(spec, epochs=1), stories(20), folder)
    for path, _ in flipped(folder, 60):
        with pytest.raises((DamageError, InputError), match=re.escape(str(path.name))):
            pretrain(replace(spec, epochs=1), stories(20), folder)
    assert pretrain(replace(spec, epochs=1), stories(20), folder) == done
    plan, extracting = CapturePlan(backbone=str(folder), max_tokens=16), ExtractSpec(cache=str(tmp_path / "cache"))
    before = backbone_digests(plan, extracting)
    for _ in flipped(folder, 12, seed=1):  # as the backbone of any recipe
        with pytest.raises((DamageError, InputError), match=re.escape(f"{folder}")):
            backbone_digests(plan, extracting)
    assert backbone_digests(plan, extracting) == before
    (folder / "config.json").unlink()
    with pytest.raises(DamageError, match=r"config\.json is not there"):
        pretrain(replace(spec, epochs=1), stories(20), folder)


def test_without_held_out_text_there_is_no_perplexity(spec, tmp_path):
    done = pretrain(replace(spec, held_out=0, epochs=1), stories(20), tmp_path / "model")
    assert (done.loss, done.perplexity, done.held_out) == (None, None, 0)
    assert json.loads((tmp_path / "model" / "pretraining.json").read_text())["perplexity"] is None


def test_bfloat16_learns_as_float32_does_within_its_precision(spec, tmp_path):
    exact, lowered = (
        pretrain(replace(spec, compute_dtype=dtype), stories(), tmp_path / dtype) for dtype in ("float32", "bfloat16")
    )
    assert losses(exact) != losses(lowered)
    np.testing.assert_allclose(losses(exact), losses(lowered), rtol=0.05)


def test_masks_hide_a_share_of_ordinary_tokens_by_eighty_ten_ten():
    masking = Masking(3, np.arange(10, 1000), 0.15)
    block = np.concatenate([[1], np.random.default_rng(0).integers(10, 1000, 126), [2]])
    random = np.random.default_rng(1)
    drawn = [masking(block, random) for _ in range(400)]
    seen, labels = (np.stack(part) for part in zip(*drawn, strict=True))
    chosen = labels != IGNORED
    assert (chosen.sum(1) == round(0.15 * 128)).all()
    assert not chosen[:, [0, -1]].any()
    assert (labels[chosen] == np.broadcast_to(block, seen.shape)[chosen]).all()
    assert (seen[~chosen] == np.broadcast_to(block, seen.shape)[~chosen]).all()
    assert (seen[chosen] == 3).mean() == pytest.approx(0.8, abs=0.02)
    assert (seen[chosen] == labels[chosen]).mean() == pytest.approx(0.1, abs=0.02)


def test_every_epoch_has_every_block_once_in_an_order_and_with_masks_of_its_own():
    blocks = np.arange(80, dtype=np.int32).reshape(5, 16) + 10
    objectives = BlockDataset(blocks, 3, 0, Masking(3, np.arange(10, 100), 0.2))
    epochs = [[objectives[epoch * 5 + row] for row in range(5)] for epoch in range(3)]
    whole = [[np.where(labels == IGNORED, seen, labels).tolist() for seen, labels in epoch] for epoch in epochs]
    assert len(objectives) == 15
    assert all(sorted(epoch) == blocks.tolist() for epoch in whole)
    assert whole[0] != whole[1]
    hidden = [{(block[0], *np.flatnonzero(labels != IGNORED)) for block, (_, labels) in zip(w, e, strict=True)}
              for w, e in zip(whole, epochs, strict=True)]  # fmt: skip
    assert not hidden[0] & hidden[1]
    assert all(np.array_equal(*pair) for pair in zip(objectives[7], objectives[7], strict=True))


def test_blocks_hold_documents_in_order_with_special_tokens_and_no_padding():
    (blocks,) = cut_blocks([[11, 12, 13], [14], [15, 16, 17, 18]], Frame((1,), (2,), (2,)), 6)
    assert blocks.tolist() == [[1, 11, 12, 13, 2, 2], [1, 14, 2, 15, 16, 2]]
    assert [part.shape for part in cut_blocks([[11, 12]], Frame(), 3)] == [(0, 3)]
    assert [part.shape for part in cut_blocks([], Frame(), 3)] == [(0, 3)]


@pytest.mark.parametrize("most", [1, 7, 1 << 20])
def test_blocks_from_disk_are_those_of_all_documents_joined_at_once(most, monkeypatch, tmp_path):
    """Whatever is held at a time: the blocks are those of one array of all tokens."""
    monkeypatch.setattr("permafrost.extract.pretraining.blocks.CUT_TOKENS", most)
    draw = np.random.default_rng(0)
    documents = [draw.integers(10, 99, length).tolist() for length in draw.integers(0, 30, 50)]
    frame, held_out = Frame((1,), (2,), (2, 3)), draw.random(50) < 0.3
    with TokenFile(tmp_path / "new") as file:
        file.append(iter(documents))
        assert file.lengths.tolist() == [len(document) for document in documents]
        for chosen in (held_out, ~held_out, np.zeros(50, bool)):
            joined = [
                token for document, keep in zip(documents, chosen, strict=True) if keep for token in [*document, 2, 3]
            ]
            wanted = [[1, *joined[start : start + 6], 2] for start in range(0, len(joined) - 5, 6)]
            found = blocks_on_disk(cut_blocks(file.documents(chosen), frame, 8), tmp_path)
            assert found.tolist() == wanted
            assert found.shape == (len(wanted), 8)
    assert not list((tmp_path / "new").iterdir()), "the files have no name, so nothing is left of them"


def test_held_out_documents_are_drawn_whole_and_stay_within_their_share():
    lengths = np.random.default_rng(0).integers(1, 50, 300)
    out = draw_held_out(lengths, 0.1, 0)
    assert 0.08 < lengths[out].sum() / lengths.sum() <= 0.1
    assert (draw_held_out(lengths, 0.1, 1) != out).any()
    assert draw_held_out(lengths, 0.0, 0).sum() == 0


def test_a_blank_line_ends_a_document_and_a_folder_is_read_file_by_file(tmp_path):
    (tmp_path / "b.txt").write_text("\n\nOne line\nand another.\n \nA second.\n")
    with gzip.open(tmp_path / "a.txt.gz", "wt") as file:
        file.write("First of all.")
    assert list(Documents(tmp_path)) == ["First of all.", "One line and another.", "A second."]
    assert list(Documents(tmp_path / "b.txt")) == ["One line and another.", "A second."]


def test_files_that_are_no_text_are_refused_by_place(tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes(b"fine\n\ncaf\xe9\n")
    (tmp_path / "table.csv").write_text("a,b\n")
    for name, message in (("empty.txt", "holds no text"), ("latin.txt", "latin.txt:3: the document is not UTF-8"),
                          ("table.csv", "unknown kind of file"), ("none.txt", "no such file")):  # fmt: skip
        with pytest.raises(CorpusError, match=message):
            list(Documents(tmp_path / name))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_real_vocabularies_make_blocks_of_real_text(objective, tmp_path):
    folder = real_model("bert_vocab" if objective == "masked" else "gpt2_vocab")
    texts = Documents(real_data("lm_corpus") / "tinystories_train_sample.txt.gz")
    spec = LanguageSpec(objective=objective, vocabulary=str(folder), held_out=0.2)
    vocabulary = read_vocabulary(spec)
    result, held = blocks_of(spec, vocabulary, texts, tmp_path)
    assert result.shape[1] == held.shape[1] == 128
    if objective == "masked":
        assert vocabulary.size == 30522
        assert (result[:, 0] == 101).all()
        assert (result[:, -1] == 102).all()
        assert sum(part.numel() for part in make_language_model(spec, vocabulary).parameters()) == 11_103_290
    else:
        assert (vocabulary.size, vocabulary.frame) == (50257, Frame(between=(50256,)))
        assert (result == 50256).any()

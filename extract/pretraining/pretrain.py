"""Pretraining: a small BERT or GPT-2 from scratch on plain text, left as an ordinary model folder.

Checkpoints lie beside the folder and go when it is there; the folder itself is whole or absent, and never overwritten.
The same spec, texts and machine give the same losses, interrupted or not.
"""

import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from permafrost.data.atomic import TEMPORARY_SUFFIX, sync_folder
from permafrost.data.corpora.records import CorpusError
from permafrost.data.errors import InputError, MachineError
from permafrost.data.language.record import LanguageModel, read_record
from permafrost.data.language.spec import LanguageSpec, differences, origin
from permafrost.data.progress import Progress, Silent
from permafrost.data.store.plan import CapturePlan
from permafrost.extract.backbones.identity import compute_dtype, pick_device
from permafrost.extract.pretraining.blocks import BlockDataset, cut, held_out
from permafrost.extract.pretraining.checkpoints import newest, open_folder
from permafrost.extract.pretraining.vocabulary import Vocabulary, read_vocabulary, vocabulary_digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel


CHECKPOINTS = ".checkpoints"
"""Added to the folder's name for where its checkpoints go."""

OTHER_DRAWS = 1 << 32
"""Added to the seed for the masks of held-out text."""


def pretrain(spec: LanguageSpec, texts: Sequence[str], folder: Path, progress: Progress | None = None) -> LanguageModel:
    """Pretrain a model and leave it in ``folder``, with its tokenizer; go on from a checkpoint where there is one.

    Args:
        texts: documents, none of which is parted between what is learnt and what is held out.
        folder: where the model goes; one that this pretraining left there is not made again.

    Raises:
        InputError: the folder holds something else, its checkpoints are of another pretraining, the vocabulary does not
            fit, the text does not fill a block, or the loss is not finite.
        MachineError: something cannot be written.
    """
    progress, started = progress or Silent(), time.perf_counter()
    if folder.exists():
        return already(spec, texts, folder)
    vocabulary, device = read_vocabulary(spec, texts), pick_device("auto")
    dtype = compute_dtype(CapturePlan(compute_dtype=spec.compute_dtype), device)
    source = origin(spec, vocabulary.digest, _digest(texts), dtype)
    result, held = blocks_of(spec, vocabulary, texts)
    work = folder.with_name(folder.name + CHECKPOINTS)
    try:
        open_folder(work, source)
        checkpoint = newest(work, progress)
        progress.note(
            f"{spec.objective} pretraining: {len(texts):,} documents, {len(result):,} blocks of "
            f"{spec.block_tokens} tokens and {len(held):,} held out; {dtype} on {device}"
            + (f"; going on from step {checkpoint.name.rpartition('-')[2]}" if checkpoint else "")
        )
        found = _trained(spec, vocabulary, (result, held), work, checkpoint, (dtype, device), progress)
        model, losses, guessed = found
        loss = sum(total for total, _ in guessed) / sum(count for _, count in guessed) if guessed else None
        done = LanguageModel(
            folder=folder,
            origin=source,
            losses=losses,
            loss=loss,
            perplexity=None if loss is None else float(np.exp(loss)),
            parameters=model.num_parameters(),
            documents=len(texts),
            blocks=len(result),
            held_out=len(held),
            seconds=time.perf_counter() - started,
            guessed=guessed,
        )
        _leave(model, vocabulary, done)
    except OSError as error:
        raise MachineError(f"{error.filename or folder} cannot be written ({error.strerror or error}).") from error
    shutil.rmtree(work, ignore_errors=True)
    return done


def already(spec: LanguageSpec, texts: Sequence[str], folder: Path) -> LanguageModel:
    """The model that ``folder`` holds already, where it is the one that this pretraining leads to.

    Raises:
        InputError: it is another, or no result of a pretraining by this version.
        DamageError: it is not as the pretraining left it.
    """
    try:
        there = read_record(folder)
    except InputError as error:
        raise InputError(
            f"{folder} exists already and is no result of a pretraining by this version of permafrost; it is never "
            "overwritten: set language.folder to another."
        ) from error
    vocabulary = vocabulary_digest(spec) or there.origin.get("vocabulary", "")  # of one to be learnt, the text says it
    auto = spec.compute_dtype == "auto"
    dtype = there.origin.get("compute_dtype", "") if auto else spec.compute_dtype
    if differ := differences(there.origin, origin(spec, vocabulary, _digest(texts), dtype)):
        raise InputError(
            f"{folder} holds the model of another pretraining ({'; '.join(differ)}), which is never overwritten; go "
            "back to its settings, or set language.folder to another."
        )
    return there


def blocks_of(
    spec: LanguageSpec, vocabulary: Vocabulary, texts: Sequence[str]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Blocks to learn from and blocks held out, ``[block, token]`` each.

    Raises:
        CorpusError: either has no block.
    """
    documents = vocabulary.encode(texts)
    lengths = np.array([len(document) for document in documents], np.int64)
    out = held_out(lengths, spec.held_out, spec.seed)
    parts = []
    for chosen, name in ((~out, "to learn from"), (out, "held out")):
        part = [document for document, mine in zip(documents, chosen, strict=True) if mine]
        blocks = cut(part, vocabulary.frame, spec.block_tokens)
        if not len(blocks) and (spec.held_out or name == "to learn from"):
            raise CorpusError(
                f"the text is too small: {lengths[chosen].sum():,} tokens in {len(part):,} documents {name} do not "
                f"fill one block of language.block_tokens = {spec.block_tokens}; take more text or shorter blocks"
                + (", or set language.held_out = 0." if spec.held_out else ".")
            )
        parts.append(blocks)
    return parts[0], parts[1]


def untrained_model(spec: LanguageSpec, vocabulary: Vocabulary) -> "PreTrainedModel":
    """A ``BertForMaskedLM`` or ``GPT2LMHeadModel`` with weights drawn from the seed, in float32."""
    import torch
    import transformers
    from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    ends, pad = vocabulary.id("eos_token"), vocabulary.id("pad_token")
    torch.manual_seed(spec.seed)
    if spec.objective == "masked":
        return BertForMaskedLM(
            BertConfig(
                vocab_size=vocabulary.size,
                hidden_size=spec.width,
                num_hidden_layers=spec.blocks,
                num_attention_heads=spec.heads,
                intermediate_size=spec.inner,
                hidden_dropout_prob=spec.dropout,
                attention_probs_dropout_prob=spec.dropout,
                max_position_embeddings=spec.block_tokens,
                pad_token_id=pad,
            )
        )
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocabulary.size,
            n_embd=spec.width,
            n_layer=spec.blocks,
            n_head=spec.heads,
            n_inner=spec.inner,
            resid_pdrop=spec.dropout,
            embd_pdrop=spec.dropout,
            attn_pdrop=spec.dropout,
            activation_function="gelu_pytorch_tanh",  # GPT-2's gelu_new, as one operation
            n_positions=spec.block_tokens,
            bos_token_id=ends,
            eos_token_id=ends,
            pad_token_id=pad,
        )
    )


def _trained(
    spec: LanguageSpec,
    vocabulary: Vocabulary,
    parts: tuple[NDArray[np.int32], NDArray[np.int32]],
    work: Path,
    checkpoint: Path | None,
    where: tuple[str, str],
    progress: Progress,
) -> tuple["PreTrainedModel", list[dict[str, float]], list[list[float]]]:
    """The model, its losses by step, and those on each block of held-out text."""
    import torch

    from permafrost.extract.pretraining.trainer import DivergedError, LanguageTrainer

    result, held = parts
    masking = vocabulary.masking(spec.mask_share) if spec.objective == "masked" else None
    with torch.random.fork_rng(devices=[]):
        model = untrained_model(spec, vocabulary)
        trainer = LanguageTrainer(model, spec, BlockDataset(result, spec.epochs, spec.seed, masking), work, *where)
        try:
            losses = trainer.learn(checkpoint, progress)
        except DivergedError:
            shutil.rmtree(work)  # other settings are needed, which it would only stand in the way of
            raise
        objectives = BlockDataset(held, 1, spec.seed + OTHER_DRAWS, masking)
        return model, losses, trainer.measure(objectives)


def _leave(model: "PreTrainedModel", vocabulary: Vocabulary, done: LanguageModel) -> None:
    """Put the model folder in its place in one step."""
    temporary = done.folder.with_name(f".{uuid.uuid4().hex}{TEMPORARY_SUFFIX}")
    try:
        model.config.use_cache = True
        model.cpu().save_pretrained(temporary)
        vocabulary.save(temporary)
        done.write_record(temporary)
        for path in temporary.iterdir():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        temporary.rename(done.folder)
        sync_folder(done.folder.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _digest(texts: Sequence[str]) -> str:
    running = hashlib.sha256()
    for text in texts:
        encoded = text.encode()
        running.update(len(encoded).to_bytes(8, "little") + encoded)
    return running.hexdigest()[:16]

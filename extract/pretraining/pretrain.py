"""Pretraining: train a small BERT or GPT-2 from scratch on plain text, and leave it as an ordinary model folder.

Checkpoints lie beside the folder and are removed once it is there; the folder itself is complete or absent, and never
overwritten. The same spec, texts and machine give the same losses, interrupted or not.

transformers, and the trainer with it, is imported where it is used: it is slow to import, and most commands pretrain
nothing.
"""

import shutil
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from permafrost.data.atomic import file_lock, move_into_place, remove_leftovers, temporary_path
from permafrost.data.corpora.records import CorpusError
from permafrost.data.digests import PartsDigest
from permafrost.data.errors import InputError, MachineError
from permafrost.data.language.record import LanguageModel, read_record
from permafrost.data.language.spec import LanguageSpec, differences, origin
from permafrost.data.machine import pick_device
from permafrost.data.plan.plan import CapturePlan
from permafrost.data.progress import NoProgress, Progress
from permafrost.data.spec import SpecError
from permafrost.extract.backbones.identity import compute_dtype
from permafrost.extract.pretraining.blocks import BlockDataset, cut_blocks, draw_held_out
from permafrost.extract.pretraining.token_file import TokenFile, blocks_on_disk
from permafrost.extract.pretraining.vocabulary import Vocabulary, read_vocabulary, vocabulary_digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel


CHECKPOINTS = ".checkpoints"
"""Suffix of the folder of checkpoints, after the name of the model folder."""

HELD_OUT_SEED = 1 << 32
"""Added to the seed for the masks of held-out text."""


def _training_device(wanted: str) -> str:
    device = pick_device(wanted)
    if device.startswith("cuda:"):
        raise SpecError(
            f'device = "{device}": all visible GPUs take part in the pretraining of a language model; set device = '
            f'"cuda", and CUDA_VISIBLE_DEVICES={device.removeprefix("cuda:")} in the environment to choose one.'
        )
    return device


def pretrain(
    spec: LanguageSpec, texts: Iterable[str], folder: Path, progress: Progress | None = None, device: str = "auto"
) -> LanguageModel:
    """Pretrain a model and leave it in ``folder``, with its tokenizer; resume from a checkpoint if there is one.

    While another process pretrains it, this one waits.

    Args:
        texts: documents, which may be read anew; each is learned from or held out as a whole.
        folder: where the model goes; if it holds the result of the same pretraining, that is returned.
        device: as the setting ``device``; all GPUs take part, so it names none of several.

    Raises:
        InputError: the folder holds something else, its checkpoints are of another pretraining, the vocabulary does not
            fit, the text does not fill a block, or the loss is not finite.
        MachineError: something cannot be written.
    """
    progress = progress or NoProgress()
    if not folder.exists():
        with _held(folder, progress):
            if not folder.exists():
                return _pretrain(spec, texts, folder, progress, device)
    model = read_existing(spec, texts, folder)
    shutil.rmtree(_checkpoints(folder), ignore_errors=True)  # of a process that was killed once the model was there
    return model


def _checkpoints(folder: Path) -> Path:
    """Return the folder of the checkpoints of a model folder."""
    return folder.with_name(folder.name + CHECKPOINTS)


@contextmanager
def _held(folder: Path, progress: Progress) -> Iterator[None]:
    """Hold a model folder that is to be made; say so if another process holds it, and wait until it does no more."""
    lock, is_new = folder.with_name(f".{folder.name}.lock"), not folder.parent.exists()
    with ExitStack() as stack:
        if not stack.enter_context(file_lock(lock, wait=False)):
            progress.note(f"a pretraining of {folder} is under way in another process; this one waits for it")
            stack.enter_context(file_lock(lock))
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
            if is_new:
                with suppress(OSError):  # something is in it now
                    folder.parent.rmdir()


def _pretrain(spec: LanguageSpec, texts: Iterable[str], folder: Path, progress: Progress, device: str) -> LanguageModel:
    started = time.perf_counter()
    device, vocabulary = _training_device(device), read_vocabulary(spec, texts)
    dtype = compute_dtype(CapturePlan(compute_dtype=spec.compute_dtype), device)
    counted = _CountedTexts(texts)
    blocks, held_out = blocks_of(spec, vocabulary, counted, folder.parent)
    source = origin(spec, vocabulary.digest, counted.digest, dtype)
    masking = vocabulary.masking(spec.mask_share) if spec.objective == "masked" else None
    checkpoints = _checkpoints(folder)
    from permafrost.extract.pretraining.trainer import LanguageTrainer, newest_checkpoint, open_folder

    try:
        open_folder(checkpoints, source)
        checkpoint = newest_checkpoint(checkpoints, progress)
        progress.note(
            f"{spec.objective} pretraining: {counted.count:,} documents, {len(blocks):,} blocks of "
            f"{spec.block_tokens} tokens and {len(held_out):,} held out; {dtype} on {device}"
            + (f"; resuming from step {checkpoint.name.rpartition('-')[2]}" if checkpoint else "")
        )
        with torch.random.fork_rng(devices=[]):
            model = make_language_model(spec, vocabulary)
            dataset = BlockDataset(blocks, spec.epochs, spec.seed, masking)
            trainer = LanguageTrainer(model, spec, dataset, checkpoints, dtype=dtype, device=device)
            losses = trainer.fit(checkpoint, progress)
            guessed = trainer.block_losses(BlockDataset(held_out, 1, spec.seed + HELD_OUT_SEED, masking))
        loss = sum(total for total, _ in guessed) / sum(count for _, count in guessed) if guessed else None
        result = LanguageModel(
            folder=folder,
            origin=source,
            losses=losses,
            loss=loss,
            perplexity=None if loss is None else float(np.exp(loss)),
            parameters=model.num_parameters(),
            documents=counted.count,
            blocks=len(blocks),
            held_out=len(held_out),
            seconds=time.perf_counter() - started,
            guessed=guessed,
        )
        _write_model(model, vocabulary, result)
    except OSError as error:
        raise MachineError(f"{error.filename or folder} cannot be written ({error.strerror or error}).") from error
    shutil.rmtree(checkpoints, ignore_errors=True)
    return result


def read_existing(spec: LanguageSpec, texts: Iterable[str], folder: Path) -> LanguageModel:
    """Return the model in ``folder`` if it is the result of this pretraining.

    Raises:
        InputError: it is another, or no result of a pretraining by this version.
        DamageError: its files are not as the pretraining left them.
    """
    try:
        model = read_record(folder)
    except InputError as error:
        raise InputError(
            f"{folder} exists already and is no result of a pretraining by this version of permafrost; it is never "
            "overwritten: set language.folder to another."
        ) from error
    vocabulary = vocabulary_digest(spec) or model.origin.get("vocabulary", "")  # the text decides one that is learned
    auto = spec.compute_dtype == "auto"
    dtype = model.origin.get("compute_dtype", "") if auto else spec.compute_dtype
    counted = _CountedTexts(texts)
    deque(counted, maxlen=0)
    if different := differences(model.origin, origin(spec, vocabulary, counted.digest, dtype)):
        raise InputError(
            f"{folder} holds the model of another pretraining ({'; '.join(different)}), which is never overwritten; go "
            "back to its settings, or set language.folder to another."
        )
    return model


def blocks_of(
    spec: LanguageSpec, vocabulary: Vocabulary, texts: Iterable[str], folder: Path
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the blocks to learn from and the blocks held out, ``[block, token]`` each, mapped from files.

    Args:
        folder: in whose file system the files without a name are.

    Raises:
        CorpusError: either has no block.
        MachineError: the disk is full.
    """
    try:
        with TokenFile(folder) as documents:
            documents.append(vocabulary.encode(texts))
            lengths = documents.lengths
            held_out = draw_held_out(lengths, spec.held_out, spec.seed)
            parts = [
                blocks_on_disk(cut_blocks(documents.documents(chosen), vocabulary.frame, spec.block_tokens), folder)
                for chosen in (~held_out, held_out)
            ]
    except OSError as error:
        raise MachineError(
            f"{folder}: the token ids of the text cannot be written ({error.strerror or error}); set language.folder "
            "to another disk."
        ) from error
    for blocks, chosen, name in zip(parts, (~held_out, held_out), ("to learn from", "held out"), strict=True):
        if not len(blocks) and (spec.held_out or name == "to learn from"):
            raise CorpusError(
                f"the text is too small: {lengths[chosen].sum():,} tokens in {chosen.sum():,} documents "
                f"{name} do not fill one block of language.block_tokens = {spec.block_tokens}; take more text or "
                "shorter blocks" + (", or set language.held_out = 0." if spec.held_out else ".")
            )
    return parts[0], parts[1]


def make_language_model(spec: LanguageSpec, vocabulary: Vocabulary) -> "PreTrainedModel":
    """Return a ``BertForMaskedLM`` or ``GPT2LMHeadModel`` with weights drawn from the seed, in float32."""
    import transformers
    from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    end_id = vocabulary.id("eos_token")
    common = {
        "vocab_size": vocabulary.size,
        "hidden_size": spec.width,
        "num_hidden_layers": spec.blocks,
        "num_attention_heads": spec.heads,
        "max_position_embeddings": spec.block_tokens,
        "pad_token_id": vocabulary.id("pad_token"),
    }
    torch.manual_seed(spec.seed)
    if spec.objective == "masked":
        return BertForMaskedLM(
            BertConfig(
                **common,
                intermediate_size=spec.inner,
                hidden_dropout_prob=spec.dropout,
                attention_probs_dropout_prob=spec.dropout,
            )
        )
    return GPT2LMHeadModel(
        GPT2Config(
            **common,
            n_inner=spec.inner,
            resid_pdrop=spec.dropout,
            embd_pdrop=spec.dropout,
            attn_pdrop=spec.dropout,
            activation_function="gelu_pytorch_tanh",  # GPT-2's gelu_new, as one operation
            bos_token_id=end_id,
            eos_token_id=end_id,
        )
    )


def _write_model(model: "PreTrainedModel", vocabulary: Vocabulary, result: LanguageModel) -> None:
    """Write the model folder under a temporary name, and rename it."""
    model.config.use_cache = True
    remove_leftovers(result.folder.parent)
    with temporary_path(result.folder.parent) as temporary:
        model.cpu().save_pretrained(temporary)
        vocabulary.save(temporary)
        result.write_record(temporary)
        move_into_place(temporary, result.folder)


class _CountedTexts:
    """Texts that are counted, and whose digest is made, while they are read."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts, self.count, self.digest = texts, 0, ""

    def __iter__(self) -> Iterator[str]:
        parts = PartsDigest()
        for text in self._texts:
            parts.add(text.encode())
            self.count += 1
            yield text
        self.digest = parts.digest[:16]

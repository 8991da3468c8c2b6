"""Language-model trainer: transformers' Trainer over blocks, with logits computed only for the tokens to predict.

Checkpoints are the Trainer's: weights as safetensors, state as JSON, and torch files are loaded with ``weights_only``.
Incomplete ones are not used, and those of other settings or other text are refused.
"""

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from permafrost.data.atomic import write_atomically
from permafrost.data.digests import digests_of_files
from permafrost.data.errors import CheckpointError, MachineError, first_line
from permafrost.data.language.spec import LanguageSpec, differences
from permafrost.data.progress import Eta, Progress
from permafrost.data.spec import SpecError
from permafrost.extract.pretraining.blocks import IGNORED, BlockDataset, Ids

KEPT = 2
"""Checkpoints kept: if the last is incomplete, one before it is left."""

ORIGIN = "origin.json"
"""File with the settings and digests that a folder's checkpoints belong to."""

DIGESTS_FILE = "whole.json"
"""File with the digest of every file of a checkpoint; written last."""


class DivergedError(SpecError):
    """Training loss that is NaN or infinite."""


class LanguageTrainer(Trainer):  # type: ignore[misc]
    """Trainer of a masked or causal language model on blocks, in their order."""

    def __init__(
        self, model: nn.Module, spec: LanguageSpec, dataset: BlockDataset, folder: Path, *, dtype: str, device: str
    ) -> None:
        """Prepare the training.

        Args:
            dataset: the blocks of all epochs.
            folder: where checkpoints go.
            dtype: "float32", or "bfloat16" for autocast.
        """
        steps = math.ceil(len(dataset) / spec.batch_rows)
        arguments = TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=1,  # the dataset holds all epochs, so that a step number identifies its blocks
            train_sampling_strategy="sequential",
            per_device_train_batch_size=spec.batch_rows,
            learning_rate=spec.learning_rate,
            lr_scheduler_type="linear",
            warmup_steps=round(spec.warmup * steps),
            weight_decay=spec.weight_decay,
            max_grad_norm=spec.clip,
            seed=spec.seed,
            use_cpu=device == "cpu",
            save_strategy="steps",
            save_steps=spec.checkpoint_steps,
            save_total_limit=KEPT,
            logging_steps=1,
            logging_nan_inf_filter=False,
            report_to="none",
            log_level="error",
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
        )
        self.spec, self.steps, self.lowered = spec, steps, dtype == "bfloat16"
        super().__init__(model=model, args=arguments, train_dataset=dataset, data_collator=collate)
        self.remove_callback(PrinterCallback)

    def fit(self, checkpoint: Path | None, progress: Progress) -> list[dict[str, float]]:
        """Train to the end, from a checkpoint or from the beginning.

        Returns:
            ``step`` and ``loss`` of every step.

        Raises:
            DivergedError: the loss is not finite; the checkpoints are removed.
            MachineError: a checkpoint cannot be written.
        """
        with progress.bar(f"{self.spec.objective} pretraining, steps", self.steps) as advance:
            self.add_callback(_ProgressCallback(advance, progress, self.spec.epochs, self.steps))
            try:
                self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            except DivergedError:
                shutil.rmtree(self.args.output_dir)  # other settings are needed, which its checkpoints would refuse
                raise
        return [{"step": entry["step"], "loss": entry["loss"]} for entry in self.state.log_history if "loss" in entry]

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *_: Any, **__: Any) -> Tensor:
        """Return the mean loss over the tokens to predict; raise :class:`DivergedError` if it is not finite."""
        with torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.lowered):
            total, count = prediction_loss(self.model, **inputs)
        loss = total / count
        if not torch.isfinite(loss):
            raise DivergedError(
                f"the pretraining loss became {loss.item()} at step {self.state.global_step + 1} of {self.steps}; "
                "lower language.learning_rate or raise language.warmup"
                + (', or set language.compute_dtype = "float32".' if self.lowered else ".")
            )
        return loss

    def _save_checkpoint(self, *args: Any) -> None:
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        try:
            super()._save_checkpoint(*args)
            mark_complete(folder)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise MachineError(
                f"{folder} cannot be written ({first_line(error)}); make room and run the same command: it "
                "goes on from the checkpoint before."
            ) from error

    def block_losses(self, dataset: BlockDataset) -> list[list[float]]:
        """Return for each block of another dataset the sum of its losses, and the number of tokens to predict."""
        self.model.eval()
        losses, device = [], self.args.device
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=self.lowered):
            for index in range(len(dataset)):
                batch = {name: values.to(device) for name, values in collate([dataset[index]]).items()}
                total, count = prediction_loss(self.model, **batch)
                losses.append([float(total), count])
        return losses


def prediction_loss(model: Any, input_ids: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    """Return the sum of the cross entropies in nats, and the number of tokens to predict.

    Logits are computed for those tokens only.

    Args:
        model: a ``BertForMaskedLM`` or ``GPT2LMHeadModel``.
        input_ids: ``[row, token]``.
        labels: ``[row, token]``, the id to predict *at* each position (not shifted); -100 if there is none.
    """
    chosen = labels != IGNORED
    hidden = model.base_model(input_ids).last_hidden_state[chosen]
    head: Callable[[Tensor], Tensor] = model.cls if hasattr(model, "cls") else model.lm_head
    targets = labels[chosen]
    return nn.functional.cross_entropy(head(hidden).float(), targets, reduction="sum"), len(targets)


def collate(blocks: Sequence[tuple[Ids, Ids]]) -> dict[str, Tensor]:
    """Stack input ids and labels of blocks to a batch, ``[row, token]`` each."""
    input_ids, labels = (torch.stack([torch.from_numpy(ids) for ids in column]) for column in zip(*blocks, strict=True))
    return {"input_ids": input_ids, "labels": labels}


class _ProgressCallback(TrainerCallback):  # type: ignore[misc]
    """Callback that advances a progress bar, notes the expected time once, and notes the mean loss of each epoch."""

    def __init__(self, advance: Callable[[int], None], progress: Progress, epochs: int, steps: int) -> None:
        self.advance, self.progress, self.epochs, self.steps = advance, progress, epochs, steps

    def on_train_begin(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
        self.expected = Eta(self.progress, self.steps - state.global_step)
        self.advance(state.global_step)

    def on_step_end(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
        self.advance(1)
        self.expected.advance(1)

    def on_log(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
        step, history = state.global_step, state.log_history
        ended = step * self.epochs // self.steps
        if "loss" in history[-1] and ended > (step - 1) * self.epochs // self.steps:
            losses = [entry["loss"] for entry in history if entry["step"] > step - self.steps / self.epochs]
            self.progress.note(f"epoch {ended} of {self.epochs}: loss {sum(losses) / len(losses):.4f}")


def open_folder(folder: Path, origin: Mapping[str, Any]) -> None:
    """Create the folder for the checkpoints of a pretraining, or check that an existing one is of the same.

    Raises:
        CheckpointError: it holds checkpoints of other settings, text or vocabulary, or something else.
    """
    path = folder / ORIGIN
    if not path.is_file():
        if folder.is_dir() and any(not name.name.startswith(".") for name in folder.iterdir()):
            raise CheckpointError(f"{folder} is where checkpoints go, and holds something else; move it away.")
        write_atomically(path, json.dumps(origin, indent=1).encode())
        return
    try:
        known = json.loads(path.read_text("utf-8"))
        different = differences(known, origin)
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); delete {folder} to begin again.") from error
    if different:
        raise CheckpointError(
            f"{folder} holds checkpoints of another pretraining ({'; '.join(different)}); go back to its settings, or "
            "delete it to begin again."
        )


def mark_complete(checkpoint: Path) -> None:
    """Mark a checkpoint as complete; raise :class:`OSError` if the mark cannot be written."""
    write_atomically(checkpoint / DIGESTS_FILE, json.dumps(_digests(checkpoint)).encode())


def newest_checkpoint(folder: Path, progress: Progress) -> Path | None:
    """Return the latest complete checkpoint, or None; later ones that are incomplete are removed with a note."""
    steps = {path: path.name.removeprefix("checkpoint-") for path in folder.glob("checkpoint-*") if path.is_dir()}
    checkpoints = sorted((path for path, step in steps.items() if step.isdecimal()), key=lambda path: int(steps[path]))
    while checkpoints:
        with suppress(OSError, ValueError):  # no readable list of digests
            if json.loads((checkpoints[-1] / DIGESTS_FILE).read_text("utf-8")) == _digests(checkpoints[-1]):
                return checkpoints[-1]
        progress.note(f"{checkpoints[-1]} is incomplete (interrupted while writing) and is removed")
        shutil.rmtree(checkpoints.pop())
    return None


def _digests(checkpoint: Path) -> dict[str, str]:
    return digests_of_files(checkpoint, (path.name for path in checkpoint.iterdir() if path.name != DIGESTS_FILE))

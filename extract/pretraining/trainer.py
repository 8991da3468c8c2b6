"""transformers' Trainer, told to be quiet, exact and careful: one lesson a row, logits only where something is guessed.

Checkpoints are its own: weights as safetensors, state as JSON, and what torch saves is loaded with ``weights_only``.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from permafrost.data.errors import MachineError
from permafrost.data.language.spec import LanguageSpec
from permafrost.data.progress import Eta, Progress
from permafrost.data.spec import SpecError
from permafrost.extract.pretraining.blocks import IGNORED, BlockDataset, Ids
from permafrost.extract.pretraining.checkpoints import seal

MEASURED_SECONDS = 5.0
"""After how long the expected time is said."""

KEPT = 2
"""Checkpoints kept, so that one that was cut short leaves another."""


class DivergedError(SpecError):
    """A loss that is not a number, or infinite."""


class LanguageTrainer(Trainer):  # type: ignore[misc]
    """Trains a masked or causal model on lessons, in their order."""

    def __init__(
        self,
        model: nn.Module,
        spec: LanguageSpec,
        objectives: BlockDataset,
        folder: Path,
        dtype: str,
        device: str,
    ) -> None:
        steps = math.ceil(len(objectives) / spec.batch_rows)
        arguments = TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=1,  # the lessons hold all epochs, so that a step knows its lessons by its number
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
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=objectives,
            data_collator=collated,
        )
        self.remove_callback(PrinterCallback)

    def learn(self, checkpoint: Path | None, progress: Progress) -> list[dict[str, float]]:
        """Train to the end, from a checkpoint or the beginning; returns step and loss of every step.

        Raises:
            DivergedError: the loss is not finite.
            MachineError: a checkpoint cannot be written.
        """
        with progress.bar(f"{self.spec.objective} pretraining, steps", self.steps) as advance:
            self.add_callback(_Watch(advance, progress, self.spec.epochs, self.steps))
            self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        return [{"step": line["step"], "loss": line["loss"]} for line in self.state.log_history if "loss" in line]

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *_: Any, **__: Any) -> Tensor:
        """The mean over what is to be guessed; raises :class:`DivergedError` where it is not finite."""
        with torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.lowered):
            total, count = guessing_loss(self.model, **inputs)
        loss = total / count
        if not torch.isfinite(loss):
            raise DivergedError(
                f"the pretraining loss became {loss.item()} at step {self.state.global_step + 1} of {self.steps}; "
                "lower language.learning_rate or raise language.warmup"
                + (', or set language.compute_dtype = "float32".' if self.lowered else ".")
            )
        return loss

    def _save_checkpoint(self, *given: Any) -> None:
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        try:
            super()._save_checkpoint(*given)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise MachineError(
                f"{folder} cannot be written ({str(error).splitlines()[0]}); make room and run the same command: it "
                "goes on from the checkpoint before."
            ) from error
        seal(folder)

    def measure(self, objectives: BlockDataset) -> list[list[float]]:
        """Of each of other lessons, the sum of its losses, and of how many guesses."""
        self.model.eval()
        found, device = [], self.args.device
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=self.lowered):
            for row in range(len(objectives)):
                objective = {name: part.to(device) for name, part in collated([objectives[row]]).items()}
                loss, guesses = guessing_loss(self.model, **objective)
                found.append([float(loss), guesses])
        return found


def guessing_loss(model: Any, input_ids: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    """Sum of the cross entropies of all guesses, and how many they are; logits exist only at their places.

    Args:
        model: a ``BertForMaskedLM`` or ``GPT2LMHeadModel``.
        input_ids: ``[row, token]``.
        labels: ``[row, token]``, what is to be guessed *at* a place; -100 where nothing is.
    """
    chosen = labels != IGNORED
    hidden = model.base_model(input_ids).last_hidden_state[chosen]
    head: Callable[[Tensor], Tensor] = model.cls if hasattr(model, "cls") else model.lm_head
    guesses = labels[chosen]
    return nn.functional.cross_entropy(head(hidden).float(), guesses, reduction="sum"), len(guesses)


def collated(objectives: Sequence[tuple[Ids, Ids]]) -> dict[str, Tensor]:
    """A batch of lessons, ``[row, token]`` each."""
    seen, labels = (torch.stack([torch.from_numpy(part) for part in parts]) for parts in zip(*objectives, strict=True))
    return {"input_ids": seen, "labels": labels}


class _Watch(TrainerCallback):  # type: ignore[misc]
    """Moves a bar, says once how long it will take, and of each epoch how its loss was."""

    def __init__(self, advance: Callable[[int], None], progress: Progress, epochs: int, steps: int) -> None:
        self.advance, self.progress, self.epochs, self.steps = advance, progress, epochs, steps

    def on_train_begin(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
        self.expected = Eta(self.progress, self.steps - state.global_step, MEASURED_SECONDS)
        self.advance(state.global_step)

    def on_step_end(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
        self.advance(1)
        self.expected.advance(1)

    def on_log(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
        done, lines = state.global_step, state.log_history
        ended = done * self.epochs // self.steps
        if "loss" in lines[-1] and ended > (done - 1) * self.epochs // self.steps:
            epoch = [line["loss"] for line in lines if line["step"] > done - self.steps / self.epochs]
            self.progress.note(f"epoch {ended} of {self.epochs}: loss {sum(epoch) / len(epoch):.4f}")

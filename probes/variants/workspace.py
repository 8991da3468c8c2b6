"""Workspace of an experiment: its corpora, their latents and the probe inputs made of them, each loaded once."""

import torch
from torch import nn

from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.device.transfer import CPU
from permafrost.data.machine import free_memory, pick_device
from permafrost.data.plan.layers import resolve_layers
from permafrost.data.progress import Progress
from permafrost.data.remote.mirror import local_cache
from permafrost.data.spec import fingerprint
from permafrost.probes.config.columns import resolve_columns
from permafrost.probes.config.recipe import Recipe, finetuned_view
from permafrost.probes.inputs.finetuned import cached_states, finetuned_inputs
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.inputs.memory import MemoryLimit
from permafrost.probes.inputs.providers import FrozenStates, LatentProvider
from permafrost.probes.inputs.token_inputs import read_inputs
from permafrost.probes.tasks.registry import Problem, make_problem
from permafrost.probes.training.resume import UnfinishedTrainings
from permafrost.probes.variants.caches import EncoderCache, GetInputs, InputCache
from permafrost.probes.variants.latent_workspace import LatentWorkspace


def device_of(recipe: Recipe) -> torch.device:
    """Return the device that a recipe trains on; raise a :class:`SpecError` if this machine has none of that name."""
    return torch.device(pick_device(recipe.device))


class Workspace(LatentWorkspace):
    """Corpora, latents and probe inputs of an experiment, each loaded once."""

    def __init__(
        self,
        provider: LatentProvider,
        progress: Progress,
        input_cache: GetInputs | None = None,
        unfinished: UnfinishedTrainings | None = None,
    ) -> None:
        """Create a workspace that has loaded nothing yet.

        Args:
            input_cache: where inputs are looked up before they are read; the default keeps them in memory.
            unfinished: where checkpoints of trainings under way are kept; None keeps none.
        """
        super().__init__(provider, progress)
        self.unfinished, self.encoders = unfinished, EncoderCache()
        self._input_cache = InputCache() if input_cache is None else input_cache
        self._moved = InputCache()
        self._problems: dict[str, Problem] = {}
        self._frozen_states: dict[str, FrozenStates] = {}

    def problem(self, recipe: Recipe) -> Problem:
        """Return what a recipe of one task trains on its corpus: task, head, loss and so on, resolved once.

        Raises:
            CorpusError: the corpus cannot be read, or has nothing to learn.
            SpecError: the recipe names a head, loss or metric that does not fit.
        """
        train = recipe.train
        measured = [train.metric, train.extra_metrics]
        key = fingerprint([recipe.corpus, recipe.probe.head, train.loss, train.class_weights, measured])
        if key not in self._problems:
            self._problems[key] = make_problem(recipe, self.corpus(recipe.corpus))
        return self._problems[key]

    def latent_identities(self, recipe: Recipe) -> dict[str, str]:
        """Return plan name, or "plan" -> identity of its latents, for every plan that the recipe's probe reads.

        If the whole backbone is fine-tuned, no latents are read: returns the digests of the backbone.
        """
        if recipe.finetune.cut == "none":
            return dict(self.provider.digests(recipe.plan, recipe.extract))
        stored = self.plan_latents(recipe, recipe.corpus)
        return {name or "plan": latents.store.identity.name for name, latents in stored.items()}

    def inputs(self, recipe: Recipe, spec: CorpusSpec) -> ProbeInputs:
        """Return what the recipe's probe reads of a corpus, on its device; latents that are missing are got first."""
        key = fingerprint([spec, recipe.probe_plans(), list(recipe.probe.inputs), recipe.probe.layers])

        def read() -> ProbeInputs:
            self.prepare([recipe])
            stored = self.plan_latents(recipe, spec)
            columns = resolve_columns(recipe.probe, {name: latents.columns for name, latents in stored.items()})
            return read_inputs(stored, self.corpus(spec).texts, columns, self.memory_limit(recipe))

        inputs, device = self._input_cache(key, read), device_of(recipe)
        return inputs if device == CPU else self._moved(f"{key} {device}", lambda: inputs.to(device))

    def memory_limit(self, recipe: Recipe) -> MemoryLimit:
        """Return how many bytes of latents a recipe may read into memory."""
        most, cache = recipe.train.memory_bytes, self._input_cache

        def room(size: int) -> int:
            if most is None:
                return free_memory() // 2
            return cache.make_room(size, most) if isinstance(cache, InputCache) else most

        shared = not isinstance(cache, InputCache)
        return MemoryLimit(room, local_cache(recipe.extract.cache), shared, self.progress)

    def finetuned_inputs(self, recipe: Recipe, blocks: nn.Module | None = None) -> ProbeInputs:
        """Return what the recipe's probe reads of fine-tuned blocks; blocks are created if none are given.

        Raises:
            SpecError: the recipe may not load a backbone, or its probe reads several views.
        """
        view, layers = finetuned_view(recipe)
        blocks = blocks or self.top_blocks(recipe, layers)
        frozen = recipe.finetune.frozen_layer_indices()
        finetuned = [layer for layer in blocks.layers if layer not in frozen]  # type: ignore[union-attr]
        read_layers = (*frozen, *resolve_layers(layers, finetuned))
        return finetuned_inputs(
            blocks, self._frozen_states_of(recipe), view, read_layers, view in recipe.plan.text_views
        )

    def top_blocks(self, recipe: Recipe, layers: tuple[int, ...] | str) -> nn.Module:
        """Create the blocks above the recipe's cut, with the backbone's weights, on the device of the recipe."""
        blocks = self.provider.blocks(recipe.plan, recipe.extract, recipe.finetune, layers)
        return blocks.to(device_of(recipe))

    def _frozen_states_of(self, recipe: Recipe) -> FrozenStates:
        key = fingerprint([recipe.corpus, recipe.plan, recipe.finetune.cut, recipe.finetune.frozen_layer_indices()])
        if key not in self._frozen_states:
            texts = self.corpus(recipe.corpus).texts
            if recipe.finetune.cut == "none":
                self._frozen_states[key] = self.provider.token_ids(recipe.plan, recipe.extract, texts)
            else:
                self.prepare([recipe])
                (latents,) = self.plan_latents(recipe, recipe.corpus).values()
                self._frozen_states[key] = cached_states(latents, texts, self.memory_limit(recipe))
        return self._frozen_states[key]

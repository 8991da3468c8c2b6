"""Junction of the two stages: what of stage one the experiments and predictions of stage two run.

Importing this loads torch, so :mod:`permafrost.api` does so once a recipe has been checked.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch import nn

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.progress import NoProgress, Progress
from permafrost.data.store.plan import CapturePlan, ExtractSpec
from permafrost.data.text import Text
from permafrost.extract.backbones.identity import backbone_digests
from permafrost.extract.backbones.load import Backbone
from permafrost.extract.extraction import Extractor, extract, matching_extractor
from permafrost.extract.finetuning.finetuned_backbone import FinetunedBackbone
from permafrost.extract.finetuning.top_blocks import check_cut
from permafrost.extract.pretraining.pretrain import pretrain
from permafrost.extract.tokenization.token_ids import read_token_ids
from permafrost.probes.config.finetuning import FinetuneSpec
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.experiments.language_model import with_own_backbone
from permafrost.probes.experiments.layers import run_layers
from permafrost.probes.experiments.run import run_recipe
from permafrost.probes.inputs.providers import FrozenStates, LatentProvider, PlanLatents
from permafrost.probes.inputs.shared_memory import SharedInputs
from permafrost.probes.objectives.fitted import LoadedRun
from permafrost.probes.results.outcomes import RunResult
from permafrost.probes.search.trials import Evaluate
from permafrost.probes.variants.train_variant import evaluate_recipe
from permafrost.probes.variants.workspace import Workspace


def make_extractor(run: LoadedRun, plan_name: str, loaded: Backbone | None) -> Extractor:
    """Return an extractor for new texts of a finished run.

    Args:
        loaded: the backbone of the run if it is in memory already.
    """
    plan, spec = run.capture_plan(plan_name), run.recipe.extract
    if run.backbone_folder:
        return Extractor(plan, spec, loaded)
    return matching_extractor(plan, spec, run.identities[plan_name], str(run.path), loaded)


class BackboneProvider:
    """Provider of latents, trainable blocks, token ids and digests that loads and runs backbones when needed."""

    def latents(self, plan: CapturePlan, spec: ExtractSpec, corpus: Corpus, progress: Progress) -> PlanLatents:
        """Return the latents of a plan for the texts of a corpus; texts that are not cached are extracted."""
        return PlanLatents(**vars(extract(plan, corpus.texts, spec, progress)))

    def blocks(
        self, plan: CapturePlan, extract: ExtractSpec, spec: FinetuneSpec, layers: tuple[int, ...] | str
    ) -> nn.Module:
        """Return trainable copies of the blocks above the cut."""
        assert spec.cut != "frozen"
        return FinetunedBackbone(
            plan,
            spec.cut,
            layers,
            spec.dropout,
            spec.attention_dropout,
            spec.frozen_layer_indices(),
            extract.cache,
        )

    def check_blocks(
        self, plan: CapturePlan, extract: ExtractSpec, spec: FinetuneSpec, layers: tuple[int, ...] | str
    ) -> None:
        """Raise a :class:`SpecError` if the backbone cannot be cut at ``spec.cut``."""
        assert spec.cut != "frozen"
        check_cut(plan, spec.cut, layers, extract.cache)

    def token_ids(self, plan: CapturePlan, extract: ExtractSpec, texts: Sequence[Text]) -> FrozenStates:
        """Return the token ids of texts, for blocks that are trained from the embeddings on."""
        batch, tokens = read_token_ids(plan, texts, extract.cache)
        return FrozenStates(tokens, batch.rows)

    def digests(self, plan: CapturePlan, spec: ExtractSpec) -> dict[str, str]:
        """Return digests of the backbone's weights and tokenizer."""
        return backbone_digests(plan, spec)


PROVIDER = BackboneProvider()


def make_evaluate(recipe: Recipe, folder: Path) -> Evaluate:
    """Return the function with which a worker of a study evaluates a trial; latents are shared in ``folder``."""
    return partial(evaluate_recipe, Workspace(PROVIDER, NoProgress(), SharedInputs(folder)))


def with_pretrained_backbone(name: str, recipe: Recipe, runs: Path | None, progress: Progress) -> Recipe:
    """Return a recipe with its own language model as backbone if it names it; the model is pretrained if missing."""
    return with_own_backbone(name, recipe, runs, progress, pretrain) if recipe.language.corpus else recipe


def train_probes(
    name: str, recipe: Recipe, runs: Path, progress: Progress, provider: LatentProvider = PROVIDER
) -> RunResult:
    """Train and evaluate every variant of a recipe, or every layer alone if it trains its tasks separately."""
    experiment = run_layers if recipe.tasks and recipe.multitask.schedule == "separate" else run_recipe
    return experiment(name, recipe, runs, progress, provider)

"""Junction of the two stages: the functions of :mod:`permafrost.api` for a checked recipe, with a provider of latents.

:class:`BackboneProvider` lets the experiments of stage two run the backbones of stage one. Importing this loads torch.
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
from permafrost.extract.extraction import Extractor, matching_extractor
from permafrost.extract.extraction import extract as extract_texts
from permafrost.extract.finetuning.finetuned_backbone import FinetunedBackbone
from permafrost.extract.finetuning.top_blocks import check_cut
from permafrost.extract.pretraining.pretrain import pretrain as pretrain_model
from permafrost.extract.tokenization.token_ids import read_token_ids
from permafrost.probes.config.finetuning import FinetuneSpec
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.experiments.ablation import run_ablation
from permafrost.probes.experiments.language_model import run_pretraining, with_own_backbone
from permafrost.probes.experiments.layers import run_layers
from permafrost.probes.experiments.run import run_recipe
from permafrost.probes.experiments.similarity import compare_sentences
from permafrost.probes.experiments.study import run_study
from permafrost.probes.inputs.providers import CacheProvider, FrozenStates, LatentProvider, PlanLatents
from permafrost.probes.inputs.shared_memory import SharedInputs
from permafrost.probes.objectives.fitted import LoadedRun
from permafrost.probes.prediction.predictor import Predictor
from permafrost.probes.results.outcomes import RunResult, SimilarityResult, StudyResult
from permafrost.probes.runs.load import load_tasks
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
        return PlanLatents(**vars(extract_texts(plan, corpus.texts, spec, progress)))

    def blocks(self, plan: CapturePlan, spec: FinetuneSpec, layers: tuple[int, ...] | str) -> nn.Module:
        """Return trainable copies of the blocks above the cut."""
        assert spec.cut != "frozen"
        return FinetunedBackbone(
            plan, spec.cut, layers, spec.dropout, spec.attention_dropout, spec.frozen_layer_indices()
        )

    def check_blocks(self, plan: CapturePlan, spec: FinetuneSpec, layers: tuple[int, ...] | str) -> None:
        """Raise a :class:`SpecError` if the backbone cannot be cut at ``spec.cut``."""
        assert spec.cut != "frozen"
        check_cut(plan, spec.cut, layers)

    def token_ids(self, plan: CapturePlan, texts: Sequence[Text]) -> FrozenStates:
        """Return the token ids of texts, for blocks that are trained from the embeddings on."""
        batch, tokens = read_token_ids(plan, texts)
        return FrozenStates(tokens, batch.rows)

    def digests(self, plan: CapturePlan, spec: ExtractSpec) -> dict[str, str]:
        """Return digests of the backbone's weights and tokenizer."""
        return backbone_digests(plan, spec)


PROVIDER = BackboneProvider()


def extract(recipe: Recipe, progress: Progress) -> tuple[list[Corpus], list[PlanLatents]]:
    """Extract the latents of every plan in a recipe that are not cached yet; return the corpora and the latents."""
    workspace = Workspace(PROVIDER, progress)
    variants = recipe.variant_recipes().values()
    task_recipes = [task_recipe for variant in variants for task_recipe in variant.task_recipes().values()]
    all_corpora = [workspace.corpus(task_recipe.corpus) for task_recipe in task_recipes]
    corpora = {id(corpus): corpus for corpus in all_corpora}
    workspace.prepare(task_recipes)
    return list(corpora.values()), list(workspace.stored.values())


def run(name: str, recipe: Recipe, runs: Path, progress: Progress) -> RunResult:
    """Train and evaluate every variant; latents that are not cached are extracted."""
    return _experiment(name, recipe, runs, progress, PROVIDER)


def train(name: str, recipe: Recipe, runs: Path, progress: Progress) -> RunResult:
    """Train and evaluate every variant, from cached latents alone."""
    return _experiment(name, recipe, runs, progress, CacheProvider())


def _experiment(name: str, recipe: Recipe, runs: Path, progress: Progress, provider: LatentProvider) -> RunResult:
    experiment = run_layers if recipe.tasks and recipe.multitask.schedule == "separate" else run_recipe
    return experiment(name, recipe, runs, progress, provider)


def ablate(name: str, recipe: Recipe, runs: Path, progress: Progress) -> RunResult:
    """Train the probe of a recipe on subsets of its layers."""
    return run_ablation(name, recipe, runs, progress, PROVIDER)


def study(
    name: str,
    recipe: Recipe,
    study_name: str,
    runs: Path,
    storage: str | None,
    trials: int | None,
    workers: int,
    progress: Progress,
) -> tuple[StudyResult, RunResult]:
    """Search the space of a recipe, then train the best trial again; arguments as for :func:`permafrost.api.study`."""
    return run_study(name, recipe, study_name, runs, make_evaluate, storage, trials, workers, progress, PROVIDER)


def make_evaluate(recipe: Recipe, folder: Path) -> Evaluate:
    """Return the function with which a worker of a study evaluates a trial; latents are shared in ``folder``."""
    return partial(evaluate_recipe, Workspace(PROVIDER, NoProgress(), SharedInputs(folder)))


def similarity(name: str, recipe: Recipe, runs: Path, progress: Progress) -> SimilarityResult:
    """Compute the cosines of the sentences of a recipe."""
    return compare_sentences(name, recipe, runs, progress, PROVIDER)


pretrain = partial(run_pretraining, pretrain=pretrain_model)
"""Pretrain the language model that a recipe describes."""


def with_pretrained_backbone(name: str, recipe: Recipe, runs: Path | None, progress: Progress) -> Recipe:
    """Return a recipe with the folder of its own language model for ``plan.backbone``; pretrain the model if missing.

    A recipe with another backbone is returned as it is.
    """
    return with_own_backbone(name, recipe, runs, progress, pretrain_model)


def load(path: Path, task: str) -> Predictor:
    """Load a finished run that can predict."""
    return Predictor(load_tasks(path, task), make_extractor)

"""Where the two stages meet: the verbs of the interface, with what runs a backbone for the probes of stage two.

Importing this loads torch; :mod:`permafrost.api` does so once a recipe is known to be right.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch import nn

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.progress import Progress, Silent
from permafrost.data.store.plan import CapturePlan, ExtractSpec
from permafrost.data.text import Text
from permafrost.extract.backbones.identity import digests
from permafrost.extract.backbones.load import Backbone
from permafrost.extract.extraction import Extractor, same_extractor
from permafrost.extract.extraction import extract as extract_texts
from permafrost.extract.finetuning.finetuned_backbone import FinetunedBackbone
from permafrost.extract.finetuning.top_blocks import check_cut
from permafrost.extract.pretraining.pretrain import pretrain as pretrain_model
from permafrost.extract.tokenization.token_ids import read_ids
from permafrost.probes.config.finetuning import FinetuneSpec
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.experiments.ablation import run_ablation
from permafrost.probes.experiments.language_model import run_pretraining, with_own_backbone
from permafrost.probes.experiments.layers import run_layers
from permafrost.probes.experiments.run import run_recipe
from permafrost.probes.experiments.run_multitask import run_multitask
from permafrost.probes.experiments.similarity import compare_sentences
from permafrost.probes.experiments.study import run_study
from permafrost.probes.inputs.providers import CacheProvider, FrozenStates, LatentProvider, PlanLatents
from permafrost.probes.inputs.shared_memory import SharedInputs
from permafrost.probes.prediction.predictor import LoadedBackbones, Predictor, Predictors
from permafrost.probes.results.outcomes import AblationResult, RunResult, SimilarityResult, StudyResult
from permafrost.probes.runs.load import load_tasks
from permafrost.probes.search.trials import Evaluate
from permafrost.probes.tasks.fitted import LoadedRun
from permafrost.probes.variants.train_variant import evaluate_recipe
from permafrost.probes.variants.workspace import Workspace


def make_extractor(run: LoadedRun, plan_name: str, loaded: Backbone | None) -> Extractor:
    """Stage one for new texts of a finished run; ``loaded`` is its backbone if that is in memory already."""
    plan, spec = run.capture_plan(plan_name), run.recipe.extract
    if run.backbone_folder:
        return Extractor(plan, spec, loaded)
    return same_extractor(plan, spec, run.identities[plan_name], str(run.path), loaded)


class BackboneProvider:
    """Latents, trainable blocks, token ids and digests of backbones, which are loaded and run as needed."""

    def latents(self, plan: CapturePlan, spec: ExtractSpec, corpus: Corpus, progress: Progress) -> PlanLatents:
        """The latents of a plan for the texts of a corpus; what no shard holds is run."""
        done = extract_texts(plan, corpus.texts, spec, progress)
        return PlanLatents(
            store=done.store,
            columns=done.columns,
            texts_run=done.texts_run,
            truncated=done.truncated,
            seconds=done.seconds,
        )

    def blocks(self, plan: CapturePlan, spec: FinetuneSpec, layers: tuple[int, ...] | str) -> nn.Module:
        """Fresh copies of the blocks above the cut."""
        assert spec.cut != "frozen"
        return FinetunedBackbone(
            plan, spec.cut, layers, spec.dropout, spec.attention_dropout, spec.frozen_layer_indices()
        )

    def check_blocks(self, plan: CapturePlan, spec: FinetuneSpec, layers: tuple[int, ...] | str) -> None:
        """Raise a :class:`SpecError` if the backbone cannot be cut there."""
        assert spec.cut != "frozen"
        check_cut(plan, spec.cut, layers)

    def token_ids(self, plan: CapturePlan, texts: Sequence[Text]) -> FrozenStates:
        """Token ids of texts, for blocks that learn from the embeddings on."""
        return read_ids(plan, texts)

    def digests(self, plan: CapturePlan, spec: ExtractSpec) -> dict[str, str]:
        """Digests of the backbone's weights and tokenizer."""
        return digests(plan, spec)


PROVIDER = BackboneProvider()


def extract(recipe: Recipe, progress: Progress) -> tuple[list[Corpus], list[PlanLatents]]:
    """Run what is missing of every plan in a recipe; the corpora, and where their latents are."""
    workspace = Workspace(PROVIDER, progress)
    recipes = [
        one
        for variant in recipe.variant_recipes().values()
        for one in (variant.task_recipes() or {"": variant}).values()
    ]
    corpora = {id(corpus): corpus for corpus in (workspace.corpus(one.corpus) for one in recipes)}
    workspace.prepare(recipes)
    return list(corpora.values()), list(workspace.stored.values())


def run(name: str, recipe: Recipe, runs: Path, progress: Progress, only: Sequence[str]) -> RunResult:
    """Train and evaluate every variant; what is missing of their latents is run."""
    return _experiment(name, recipe, runs, progress, only, PROVIDER)


def train(name: str, recipe: Recipe, runs: Path, progress: Progress, only: Sequence[str]) -> RunResult:
    """Train and evaluate every variant, from cached latents alone."""
    return _experiment(name, recipe, runs, progress, only, CacheProvider())


def _experiment(
    name: str, recipe: Recipe, runs: Path, progress: Progress, only: Sequence[str], provider: LatentProvider
) -> RunResult:
    several = run_layers if recipe.multitask.schedule == "separate" else run_multitask
    run_it = several if recipe.tasks else run_recipe
    return run_it(name, recipe.only(only), runs, progress, provider)


def ablate(name: str, recipe: Recipe, runs: Path, progress: Progress) -> AblationResult:
    """Train a recipe's probe on subsets of its layers."""
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
    """Search a recipe's space, then train the best trial again; arguments as of :func:`permafrost.api.study`."""
    return run_study(name, recipe, study_name, runs, make_evaluate, storage, trials, workers, progress, PROVIDER)


def make_evaluate(recipe: Recipe, folder: Path) -> Evaluate:
    """What a worker of a study does with a trial; latents are shared in ``folder``."""
    return partial(evaluate_recipe, Workspace(PROVIDER, Silent(), SharedInputs(folder)))


def compare(name: str, recipe: Recipe, runs: Path, progress: Progress) -> SimilarityResult:
    """Cosines of a recipe's sentences."""
    return compare_sentences(name, recipe, runs, progress, PROVIDER)


pretrain = partial(run_pretraining, pretrain=pretrain_model)
"""Pretrain the language model of a recipe."""


def with_pretrained_backbone(name: str, recipe: Recipe, runs: Path | None, progress: Progress) -> Recipe:
    """A recipe whose ``plan.backbone`` is its own language model, with that model's folder; pretrained if missing."""
    return with_own_backbone(name, recipe, runs, progress, pretrain_model)


def load(path: Path, task: str) -> Predictor | Predictors:
    """A finished run, ready to predict."""
    backbones = LoadedBackbones(make_extractor)
    tasks = {name: Predictor(run, backbones) for name, run in load_tasks(path, task).items()}
    return Predictors(tasks) if len(tasks) > 1 else next(iter(tasks.values()))

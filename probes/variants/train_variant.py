"""Training of one variant on one task: all its seeds for a run, or the first seed alone for the trial of a study."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.spec import SpecError, fingerprint
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.search.trials import Evaluation
from permafrost.probes.training.checkpoint import Checkpoint
from permafrost.probes.training.encoder_pretraining import PretrainedEncoder, pretrain
from permafrost.probes.training.loop import AfterEpoch
from permafrost.probes.training.resume import UnfinishedTrainings
from permafrost.probes.variants.combine_seeds import combine_seeds
from permafrost.probes.variants.members import MemberConfig, initial_probe, train_members
from permafrost.probes.variants.trained_variant import TrainedVariant
from permafrost.probes.variants.workspace import Workspace


def train_variant(variant: str, recipe: Recipe, workspace: Workspace) -> TrainedVariant:
    """Train every seed of a variant; raise a :class:`SpecError` if a seed's validation metric was never finite."""
    corpus, unfinished = workspace.corpus(recipe.corpus), workspace.unfinished
    members = train_members(
        member_configs(variant, recipe, workspace),
        corpus,
        workspace.progress,
        checkpoint_of=partial(_checkpoint, unfinished, workspace.latent_identities(recipe)) if unfinished else None,
    )
    for member in members:
        history = member.history
        if history.best_epoch < 0:
            raise SpecError(
                f"{variant}: its metric was never finite: its predictions of {corpus.selection_split} are constant."
            )
        workspace.progress.note(
            f"{variant}, seed {member.seed}: best epoch {history.best_epoch + 1} of {len(history.values)}, "
            f"{corpus.selection_split} {history.best_value:.4f}"
        )
    return combine_seeds(members, corpus, workspace.progress)


def evaluate_recipe(workspace: Workspace, recipe: Recipe, after_epoch: AfterEpoch | None = None) -> Evaluation:
    """Train the first seed of a recipe and return its best validation metric.

    Args:
        after_epoch: called after every epoch with the validation metric.
    """
    recipe = replace(recipe, train=replace(recipe.train, seeds=recipe.train.seeds[:1]))
    corpus = workspace.corpus(recipe.corpus)
    (trained,) = train_members(member_configs("trial", recipe, workspace), corpus, None, after_epoch)
    if trained.history.best_epoch < 0:
        raise SpecError(f"its predictions of {corpus.selection_split} are constant.")
    layers = trained.pretrained.layers if trained.pretrained else []
    unexplained = {"unexplained": sum(layer.unexplained for layer in layers) / len(layers)} if layers else {}
    return Evaluation(trained.history.best_value, unexplained)


def member_configs(variant: str, recipe: Recipe, workspace: Workspace) -> list[MemberConfig]:
    """Return the variant's trainings, one per seed; their encoders are pretrained first if the recipe says so."""
    seed_inputs: list[tuple[int, ProbeInputs]]
    if recipe.finetune.trains_backbone:
        seed_inputs = [(seed, workspace.finetuned_inputs(recipe)) for seed in recipe.train.seeds]
    else:
        cached = workspace.inputs(recipe, recipe.corpus)
        seed_inputs = [(seed, cached) for seed in recipe.train.seeds]
    members = [
        MemberConfig(variant=variant, recipe=recipe, inputs=inputs, layers=tuple(range(len(inputs.columns))), seed=seed)
        for seed, inputs in seed_inputs
    ]
    if recipe.finetune.trains_backbone or recipe.pretraining.task == "none":
        return members
    return [replace(member, pretrained=_pretrained_encoder(member, workspace)) for member in members]


def _pretrained_encoder(member: MemberConfig, workspace: Workspace) -> PretrainedEncoder:
    """Pretrain the encoder of a member's probe, or return it from the cache of the workspace."""
    recipe, spec = member.recipe, member.recipe.pretraining
    encoder = recipe.probe if recipe.probe.mixer == "unified" else replace(recipe.probe, mixer="softmax", hidden=0)
    plans = list(recipe.probe_plans().values())
    key = fingerprint([encoder, spec, plans, recipe.corpus, list(member.inputs.columns), member.seed])

    def make() -> PretrainedEncoder:
        probe = initial_probe(member, workspace.corpus(recipe.corpus))
        corpus, inputs = workspace.corpus(spec.corpus), workspace.inputs(recipe, spec.corpus)
        return pretrain(probe, spec, corpus, inputs, member.seed, workspace.progress)

    return workspace.encoders(key, make)


def _checkpoint(
    unfinished: UnfinishedTrainings, latents: Mapping[str, str], members: Sequence[MemberConfig], corpus: Corpus
) -> Checkpoint:
    """Return the checkpoint of members trained in one program; see :meth:`UnfinishedTrainings.checkpoint_for`."""
    return unfinished.checkpoint_for(
        "+".join(dict.fromkeys(member.variant for member in members)),
        members[0].recipe,
        [member.seed for member in members],
        {"": corpus},
        latents,
        {"layers": [list(member.layers) for member in members]},
    )

"""What stage two runs of stage one: the provider of latents, streams of texts, and the pretraining of a recipe's model.

Importing this loads no torch, and neither does the provider if all latents are stored.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.progress import Progress
from permafrost.data.spec import fingerprint
from permafrost.data.store.store import LatentStore, PlanLatents
from permafrost.data.streams.texts import TextStream, scan_texts
from permafrost.data.text import Text
from permafrost.extract.backbones.identity import backbone_digests
from permafrost.extract.distributed.distribution import Distribution
from permafrost.extract.extraction import extract
from permafrost.extract.finetuning.proven_cut import check_cut
from permafrost.extract.tokenization.token_ids import check_token_ids, read_token_ids
from permafrost.probes.config.finetuning import FinetuneSpec
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.inputs.providers import FrozenStates
from permafrost.probes.variants.latent_workspace import LatentRequest, LatentWorkspace, plan_of_all

if TYPE_CHECKING:
    from torch import nn


class BackboneProvider:
    """Provider of latents, trainable blocks, token ids and digests that loads and runs backbones when needed."""

    def __init__(self, distribution: Distribution | None = None) -> None:
        """Load nothing yet; see :func:`permafrost.extract.extraction.extract` for ``distribution``."""
        self.distribution = distribution

    def latents(self, plan: CapturePlan, spec: ExtractSpec, corpus: Corpus, progress: Progress) -> PlanLatents:
        """Return the latents of a plan for the texts of a corpus; texts that are not cached are extracted."""
        in_blocks = len(corpus.texts) > spec.block_texts  # they are those of a stream of the same corpus
        texts = corpus.texts_by_row() if in_blocks else corpus.texts
        return extract(plan, texts, spec, progress, self.distribution)

    def blocks(
        self, plan: CapturePlan, extract: ExtractSpec, spec: FinetuneSpec, layers: tuple[int, ...] | str
    ) -> "nn.Module":
        """Return trainable copies of the blocks above the cut."""
        from permafrost.extract.finetuning.finetuned_backbone import FinetunedBackbone

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

    def check_token_ids(self, plan: CapturePlan, extract: ExtractSpec, texts: Sequence[Text]) -> int:
        """Return the maximum number of tokens of a text; raise an :class:`InputError` if some cannot be tokenized."""
        return check_token_ids(plan, texts, extract.cache)

    def token_ids(self, plan: CapturePlan, extract: ExtractSpec, texts: Sequence[Text]) -> FrozenStates:
        """Return the token ids of texts, for blocks that are trained from the embeddings on."""
        batch, tokens = read_token_ids(plan, texts, extract.cache)
        return FrozenStates(tokens, batch.rows)

    def digests(self, plan: CapturePlan, spec: ExtractSpec) -> dict[str, str]:
        """Return digests of the backbone's weights and tokenizer."""
        return backbone_digests(plan, spec)


PROVIDER = BackboneProvider()


class PlannedTexts(NamedTuple):
    """Texts that a finished run or a backbone reads, which may be extracted into a store before."""

    plan: CapturePlan
    spec: ExtractSpec
    texts: Sequence[Text]
    read_from: Callable[[LatentStore], None]
    """Function that makes the reader find them in a store; it raises an error if the latents are others."""


class StreamWorkspace(LatentWorkspace):
    """Latents of corpora of any size: one with more texts than a block has is read as a stream, and never held."""

    def __init__(self, progress: Progress, distribution: Distribution | None = None) -> None:
        """Create a workspace that has read nothing yet; ``distribution`` as of a :class:`BackboneProvider`."""
        super().__init__(BackboneProvider(distribution), progress)
        self._distribution = distribution
        self._streams: dict[str, TextStream | None] = {}

    def texts(self, spec: CorpusSpec, block_texts: int) -> Corpus | TextStream:
        """Return a corpus, or its texts as a stream if they are more than a block; the first call notes its sizes."""
        key = fingerprint(spec)
        if key not in self._streams:
            stream = self._streams[key] = scan_texts(spec, block_texts)
            for note in stream.lines if stream else ():
                self.progress.note(note)
        return self._streams[key] or self.corpus(spec)

    def _extract(self, requests: list[LatentRequest]) -> None:
        spec = requests[0].extract
        stream = self.texts(requests[0].corpus, spec.block_texts)
        if isinstance(stream, Corpus):
            super()._extract(requests)
            return
        latents = extract(plan_of_all(requests), stream, spec, self.progress, self._distribution)
        self._keep(requests, latents, stream.name, f" of {stream.distinct} distinct" if stream.distinct else "")


def extract_recipe(
    name: str, recipe: Recipe, progress: Progress, distribution: Distribution | None = None
) -> tuple[list[Corpus | TextStream], list[PlanLatents]]:
    """Extract the latents of every capture plan in a recipe; returns as :func:`permafrost.api.extract`."""
    recipe = with_pretrained_backbone(name, recipe, None, progress)
    workspace, block_texts = StreamWorkspace(progress, distribution), recipe.extract.block_texts
    tasks = task_recipes(recipe)
    corpora = {id(corpus): corpus for corpus in (workspace.texts(task.corpus, block_texts) for task in tasks)}
    workspace.prepare(tasks)
    return list(corpora.values()), list(workspace.stored.values())


def task_recipes(recipe: Recipe) -> list[Recipe]:
    """Return a recipe of one task for each task of each variant."""
    return [task for variant in recipe.variant_recipes().values() for task in variant.task_recipes().values()]


def with_pretrained_backbone(name: str, recipe: Recipe, runs: Path | None, progress: Progress) -> Recipe:
    """Return a recipe with its own language model as backbone if it names it; the model is pretrained if missing."""
    if not recipe.language.corpus:
        return recipe
    from permafrost.extract.pretraining.pretrain import pretrain
    from permafrost.probes.experiments.language_model import with_own_backbone

    return with_own_backbone(name, recipe, runs, progress, pretrain)

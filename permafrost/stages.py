"""Where the two stages meet: what runs a backbone of ``extract`` for the probes that learn from its latents."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.language.record import LanguageModel
from permafrost.data.language.spec import LanguageSpec
from permafrost.data.progress import Progress
from permafrost.data.store.plan import CapturePlan, ExtractSpec
from permafrost.data.text import Text
from permafrost.extract.backbones.identity import digests
from permafrost.extract.backbones.load import Backbone
from permafrost.extract.extraction import Extractor, same_extractor
from permafrost.extract.extraction import extract as extract_texts
from permafrost.extract.finetuning.trunk import Trunk
from permafrost.extract.finetuning.upper_blocks import check_cut
from permafrost.extract.pretraining.pretrain import pretrain
from permafrost.extract.tokenization.token_ids import read_ids
from permafrost.probes.config.finetuning import UpperSpec
from permafrost.probes.inputs.stage_one import Below, Stored
from permafrost.probes.tasks.fitted import LoadedRun


def pretrain_backbone(spec: LanguageSpec, texts: Sequence[str], folder: Path, progress: Progress) -> LanguageModel:
    """Pretrain a language model from scratch, into a model folder."""
    return pretrain(spec, texts, folder, progress)


def make_extractor(run: LoadedRun, plan_name: str, loaded: Backbone | None) -> Extractor:
    """Stage one for new texts of a finished run; ``loaded`` is its backbone if that is in memory already."""
    plan, spec = run.captured(plan_name), run.recipe.extract
    if run.upper:
        return Extractor(plan, spec, loaded)
    return same_extractor(plan, spec, run.identities[plan_name], str(run.path), loaded)


class BackboneProvider:
    """Latents, trainable blocks, token ids and digests of backbones, which are loaded and run as needed."""

    def __call__(self, plan: CapturePlan, spec: ExtractSpec, corpus: Corpus, progress: Progress) -> Stored:
        """The latents of a plan for the texts of a corpus; what no shard holds is run."""
        done = extract_texts(plan, corpus.texts, spec, progress)
        return Stored(done.store, done.columns, done.texts_run, done.truncated, done.seconds)

    def trunk(self, plan: CapturePlan, spec: UpperSpec, layers: tuple[int, ...] | str) -> nn.Module:
        """Fresh copies of the blocks above the cut."""
        assert spec.cut != "frozen"
        return Trunk(plan, spec.cut, layers, spec.dropout, spec.attention_dropout, spec.cached_beside())

    def check(self, plan: CapturePlan, spec: UpperSpec, layers: tuple[int, ...] | str) -> None:
        """Raise a :class:`SpecError` if the backbone cannot be cut there."""
        assert spec.cut != "frozen"
        check_cut(plan, spec.cut, layers)

    def ids(self, plan: CapturePlan, texts: Sequence[Text]) -> Below:
        """Token ids of texts, for blocks that learn from the embeddings on."""
        return read_ids(plan, texts)

    def digests(self, plan: CapturePlan, spec: ExtractSpec) -> dict[str, str]:
        """Digests of the backbone's weights and tokenizer."""
        return digests(plan, spec)


PROVIDER = BackboneProvider()

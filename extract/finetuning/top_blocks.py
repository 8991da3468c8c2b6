"""Top blocks: the trainable blocks of a backbone above a cut, run on the stored hidden states of the layer at the cut.

Blocks at or below the cut are dropped as soon as they are loaded: they never run, take no memory and have no dropout.
"""

from dataclasses import replace
from pathlib import Path

from permafrost.data.atomic import move_into_place, temporary_path
from permafrost.data.plan.layers import resolve_layers
from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.extract.architecture.configuration import BackboneError
from permafrost.extract.backbones.file_digest import sample_of
from permafrost.extract.backbones.load import FUSED, load_backbone, load_whole_model
from permafrost.extract.backbones.locate import find_backbone
from permafrost.extract.backbones.tokenizer import tokenizer_for_saving
from permafrost.extract.finetuning.cut import Cut, count_frozen
from permafrost.extract.finetuning.cut_model import CutModel
from permafrost.extract.finetuning.cut_proof import CutCheck
from permafrost.extract.finetuning.proven_cut import proven_road


class TopBlocks(CutModel):
    """Blocks ``cut + 1`` to the last layer asked for, in float32 and in evaluation mode."""

    def __init__(
        self,
        plan: CapturePlan,
        cut: Cut,
        layers: tuple[int, ...] | str = (-1,),
        cache: str = ExtractSpec.cache,
    ) -> None:
        """Load the backbone of ``plan``, and drop what is not trained.

        Args:
            layers: layers of the output, as a plan names layers; all must be above the cut.
            cache: folder of the latent stores.

        Raises:
            BackboneError: the backbone is missing or incomplete, or its tokenizer cannot be saved with it.
            SpecError: the backbone has no such cut, or blocks above it do not have the states of the whole model; a
                layer is not above it; or the plan keeps only a part of each text's tokens.
        """
        source = find_backbone(plan, cache)
        frozen = count_frozen(source, plan, cut)
        selected = resolve_layers(layers, range(frozen + 1, source.layers))
        road = proven_road(source, cut, plan.final_norm, cache)
        backbone = load_backbone(source, plan, "float32", "cpu")
        check = CutCheck(backbone, cut, selected, plan.final_norm, cache)
        super().__init__(backbone, cut, selected, plan.final_norm, road)
        self._plan, self._tokenizer = plan, tokenizer_for_saving(source)
        self._samples = {path: sample_of(path) for path in source.stamps}
        """Samples of the weight files as they were loaded."""

        self._check = check

    def set_attention(self) -> None:
        """As :meth:`CutModel.set_attention`; the states are then compared with those of the whole backbone."""
        super().set_attention()
        self._check.compare(self)

    def save(self, folder: Path) -> None:
        """Write the whole model as an ordinary model folder with its tokenizer; the folder is complete or absent.

        Weights that were not trained are read again from where the backbone was loaded. A pooler is left out.

        Raises:
            BackboneError: ``folder`` exists, or the backbone's files changed since it was loaded.
            OSError: the folder could not be written; nothing is left behind.
        """
        if folder.exists():
            raise BackboneError(f"{folder} exists already, and a model is never written over; name another folder.")
        if any(not path.is_file() or sample_of(path) != sample for path, sample in self._samples.items()):
            raise BackboneError(
                f"{self.source.folder} has changed since its blocks were loaded for fine-tuning; put it back."
            )
        model = load_whole_model(replace(self.source), self._plan, "float32", "cpu")
        tower = model.get_submodule(self.source.architecture.tower)
        unexpected = tower.load_state_dict(self.model.state_dict(), strict=False).unexpected_keys
        assert not unexpected, unexpected
        for key, value in self.source.config.items():
            if isinstance(value, str) and value in FUSED:  # loaded under another name of the same function
                setattr(model.config, key, value)
        with temporary_path(folder.parent) as temporary:
            model.save_pretrained(temporary)
            self._tokenizer.write(temporary)
            move_into_place(temporary, folder)

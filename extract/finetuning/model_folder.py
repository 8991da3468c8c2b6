"""Saving fine-tuned blocks as an ordinary model folder, with the frozen weights and the tokenizer."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from permafrost.data.atomic import move_into_place, temporary_path
from permafrost.data.store.plan import CapturePlan
from permafrost.extract.backbones.configuration import BackboneError
from permafrost.extract.backbones.file_digest import sample_of
from permafrost.extract.backbones.load import load_backbone, tokenizer_for_saving
from permafrost.extract.backbones.locate import Source


class ModelFolder:
    """Model folder to be written for a backbone, from the weights as they were when this object was made."""

    def __init__(self, source: Source, plan: CapturePlan) -> None:
        """Remember the weight files and the tokenizer of a backbone.

        Raises:
            BackboneError: its tokenizer cannot be saved in one folder with its configuration.
        """
        self._source, self._plan = source, plan
        self._tokenizer = tokenizer_for_saving(source)
        self._samples = {path: sample_of(path) for path in source.stamps}

    def write(self, folder: Path, trained: Mapping[str, Tensor]) -> None:
        """Write the whole model with its trained weights, and the tokenizer; the folder is complete or absent.

        Weights that were not trained are read again from where the backbone was loaded. A pooler is left out.

        Args:
            trained: state dict of a part of the model.

        Raises:
            BackboneError: ``folder`` exists, or the backbone's files changed since this object was made.
            OSError: the folder could not be written; nothing is left behind.
        """
        if folder.exists():
            raise BackboneError(f"{folder} exists already, and a model is never written over; name another folder.")
        if any(not path.is_file() or sample_of(path) != sample for path, sample in self._samples.items()):
            raise BackboneError(
                f"{self._source.folder} has changed since its blocks were loaded for fine-tuning; put it back."
            )
        model = load_backbone(replace(self._source), self._plan, "float32", "cpu").model
        unexpected = model.load_state_dict(trained, strict=False).unexpected_keys
        assert not unexpected, unexpected
        for key in ("activation_function", "hidden_act"):  # loaded under another name of the same function
            if key in self._source.config:
                setattr(model.config, key, self._source.config[key])
        with temporary_path(folder.parent) as temporary:
            model.save_pretrained(temporary)
            self._tokenizer.write(temporary)
            move_into_place(temporary, folder)

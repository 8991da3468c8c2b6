"""The cold part of stage one: load the backbone, check it, run the packs that are not all there."""

import os
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from permafrost.data.errors import MachineError
from permafrost.data.progress import Eta, Progress
from permafrost.data.ragged import Counts, TokenLatents, bounds
from permafrost.data.store.find import init_name
from permafrost.data.store.key_index import text_keys
from permafrost.data.store.plan import TOKENS, CapturePlan, Columns, ExtractSpec
from permafrost.data.store.shard import Block
from permafrost.data.store.store import LatentStore
from permafrost.data.text import Text
from permafrost.extract.backbones.load import Backbone, load
from permafrost.extract.backbones.locate import Source
from permafrost.extract.capture.packing import Pack, lay_out, make_packs
from permafrost.extract.capture.read_back import ReadBack
from permafrost.extract.capture.self_check import SelfCheck
from permafrost.extract.shard_writer import ShardWriter, check_disk_space, stored_bytes, to_storage_dtype
from permafrost.extract.tokenization.checks import refuse_long_texts
from permafrost.extract.tokenization.rewording import reword
from permafrost.extract.tokenization.token_batch import TokenBatch
from permafrost.extract.tokenization.tokenize import tokenize, windowed

if TYPE_CHECKING:
    from permafrost.extract.capture.forward import Pooled


MEASURED_SECONDS = 1.0
"""After how long the expected time is said."""

ROW_TOKENS = 256

BATCH_TOKENS = {"cpu": 1024, "cuda": 16384}


class ExtractionJob:
    """A loaded backbone and the plan that it serves."""

    def __init__(
        self,
        plan: CapturePlan,
        source: Source,
        store: LatentStore,
        spec: ExtractSpec,
        progress: Progress,
        device: str,
        backbone: Backbone | None = None,
    ) -> None:
        """Args:
        backbone: the plan's own, where it is loaded already.
        """
        self.plan, self.source, self.store, self.spec, self.progress = plan, source, store, spec, progress
        self.watch: Callable[[Any, Pooled], None] | None = None
        """Told of the texts of each forward, and of what it gave."""

        self.backbone: Backbone = backbone or load(source, plan, store.identity.compute_dtype, device)

    def windowed(self, texts: Sequence[Text]) -> tuple[list[Text], Counts]:
        """Every text with its further windows, and where those of each begin."""
        return windowed(self.backbone.tokenizer, texts, self.plan.max_tokens, self.plan.overlap)

    def run(self, texts: Sequence[Text], missing: Sequence[tuple[Columns, Any]]) -> int:
        """Run every group of texts that lack the same columns; returns how many texts ran."""
        tokens, packs = self.packs(texts, any(TOKENS in columns for columns, _ in missing))
        todo = np.zeros(len(texts), bool)
        for _, members in missing:
            todo[members] = True
        self._announce(tokens, todo, missing)
        check = SelfCheck(self, texts, tokens)
        deviation = check.check_before_run(np.flatnonzero(todo), _union(columns for columns, _ in missing))
        self.progress.note(
            f"self-check: texts together are those of each alone, within {deviation:.1e} of the largest value"
        )
        provenance = self._provenance(deviation)
        expected = Eta(self.progress, int(tokens.lengths[todo].sum()), MEASURED_SECONDS)
        with self.progress.bar(f"{self.source.name} on texts", int(todo.sum())) as advance:
            for columns, members in missing:
                each = float(tokens.viewed[members].mean())
                read_back = ReadBack(check, texts, columns)
                self.watch = read_back.watch
                with ShardWriter(self.store, columns, provenance, self.spec, each, read_back) as writer:
                    for block in self.blocks(packs, members, tokens, texts, columns):
                        writer.add(block)
                        expected.advance(int(np.minimum(block.lengths, self.plan.max_tokens).sum()))
                        advance(len(block.keys))
        return int(todo.sum())

    def packs(self, texts: Sequence[Text], characters: bool = False) -> tuple[TokenBatch, list[Pack]]:
        """Tokens of the whole request, with the characters they cover where asked for, and the packs it is run in."""
        plan = self.plan
        worded = [reword(str(text), plan.rewording) for text in texts] if plan.rewording else texts
        tokens = tokenize(
            self.backbone.tokenizer, worded, plan.template, plan.max_tokens, characters, stride=plan.overlap
        )
        self.source.check_ids(tokens.ids)
        if plan.truncation == "refuse" and (tokens.uncut > plan.max_tokens).any():
            refuse_long_texts(texts, tokens.uncut, plan)
        return tokens, self.packed(tokens)

    def packed(self, tokens: TokenBatch, row_tokens: int = ROW_TOKENS, batch_tokens: int = 0) -> list[Pack]:
        """Texts in packs of at most ``batch_tokens``; 0 is what the settings say, or else the device."""
        usual = self.spec.batch_tokens or BATCH_TOKENS.get(self.backbone.device.type, BATCH_TOKENS["cuda"])
        batch_tokens = batch_tokens or usual
        return make_packs(tokens, self.source.family.causal, min(row_tokens, batch_tokens), batch_tokens)

    def forward(
        self, rows: Sequence[Any], tokens: TokenBatch, columns: Columns, backbone: Backbone | None = None
    ) -> "Pooled":
        """The latents of the texts of ``rows`` in one forward, by this backbone or another of the same family."""
        from permafrost.extract.capture.forward import capture

        layout = lay_out(rows, tokens, self.source.family.causal)
        return capture(backbone or self.backbone, layout, columns, self.plan.final_norm)

    def blocks(
        self, packs: Sequence[Pack], members: Any, tokens: TokenBatch, texts: Sequence[Text], columns: Columns
    ) -> Iterator[Block]:
        """The latents of ``members``, pack by pack; packs that hold none of them are skipped."""
        group = np.zeros(len(texts), bool)
        group[members] = True
        for pack in packs:
            rows = [kept for row in pack if len(kept := row[group[row]])]
            if rows:
                yield self._block(rows, tokens, texts, columns)

    def _block(self, rows: Sequence[Any], tokens: TokenBatch, texts: Sequence[Text], columns: Columns) -> Block:
        import torch

        members = np.concatenate(rows)
        try:
            captured = self.forward(rows, tokens, columns)
        except torch.OutOfMemoryError as error:
            raise MachineError(
                f"the {self.backbone.device.type} ran out of memory on {int(tokens.lengths[members].sum()):,} tokens; "
                "lower extract.batch_tokens and run the same command: what was committed is kept."
            ) from error
        if self.watch:
            self.watch(members, captured)
        named = [texts[index] for index in members]
        counts = tokens.viewed[members]
        member_of = {TOKENS: np.repeat(np.array(named, object), counts).tolist()} if TOKENS in columns else {}
        latents = {
            view: to_storage_dtype(values, self.plan.stored_dtype, view, columns[view], member_of.get(view, named))
            for view, values in captured.items()
        }
        ragged = None
        if TOKENS in columns:
            assert tokens.characters is not None
            seen = tokens.seen(members)
            ragged = TokenLatents(latents.pop(TOKENS), bounds(counts), tokens.ids[seen], tokens.characters[seen])
        return Block(
            keys=text_keys(named), lengths=tokens.uncut[members], columns=columns, latents=latents, tokens=ragged
        )

    def _announce(self, tokens: TokenBatch, todo: Any, missing: Sequence[tuple[Columns, Any]]) -> None:
        width, dtype, viewed = self.source.width, self.plan.stored_dtype, tokens.viewed
        size = sum(
            stored_bytes(columns, len(members), int(viewed[members].sum()), width, dtype)
            for columns, members in missing
        )
        check_disk_space(self.store.path, size, self.spec)
        self.progress.note(
            f"{self.source.name}: {self.source.layers} layers of width {self.source.width}, "
            f"{self.store.identity.compute_dtype} on {self.backbone.device.type}; {int(todo.sum()):,} texts, "
            f"{int(tokens.lengths[todo].sum()):,} tokens, {size / 1e6:,.1f} MB to {self.store.path}"
        )

    def _provenance(self, self_check: float) -> dict[str, Any]:
        """Where these latents come from."""
        import torch
        import transformers

        return {
            "backbone": self.source.name,
            "revision": self.source.revision,
            "tokenizer": self.plan.tokenizer,
            "layers": self.source.layers,
            "init": init_name(self.plan),
            "parameters": self.backbone.parameters,
            "self_check": self_check,
            "device": _device_name(self.backbone),
            "host": platform.node(),
            "threads": torch.get_num_threads(),
            "versions": {
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "h5py": version("h5py"),
                "numpy": np.__version__,
            },
        }


def _union(wanted: Iterable[Columns]) -> dict[str, tuple[int, ...]]:
    """All layers of every view that any of several columns have."""
    found: dict[str, set[int]] = {}
    for columns in wanted:
        for view, layers in columns.items():
            found.setdefault(view, set()).update(layers)
    return {view: tuple(sorted(layers)) for view, layers in found.items()}


def _device_name(backbone: Backbone) -> str:
    if backbone.device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(backbone.device)
    return f"{backbone.device.type} ({platform.machine()}, {os.cpu_count()} cores)"

"""Extraction job: check a backbone, run the packs that are not stored yet, and append them to the store as shards.

This is the half of an extraction that runs a model, with torch; what is missing is decided before, without it.
"""

import platform
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from permafrost.data.atomic import folder_lock
from permafrost.data.errors import MachineError
from permafrost.data.machine import machine_name, package_version
from permafrost.data.plan.plan import TOKENS, CapturePlan, Columns, union_of_columns
from permafrost.data.progress import Eta, Progress
from permafrost.data.spec import SpecError
from permafrost.data.store.identity import init_name
from permafrost.data.store.store import LatentStore
from permafrost.data.text import Text
from permafrost.extract.capacity import Capacity
from permafrost.extract.capture.runner import BackboneRunner
from permafrost.extract.distributed.claims import Missing
from permafrost.extract.distributed.distribution import BlockWork, Distribution, Packs
from permafrost.extract.proofs.read_back import ReadBack
from permafrost.extract.proofs.self_check import SelfCheck
from permafrost.extract.shard_writer import ShardWriter
from permafrost.extract.text_blocks import NOTHING_RUN
from permafrost.extract.tokenization.token_batch import TokenBatch
from permafrost.extract.tokenization.tokenize import windowed


class LaidOut(NamedTuple):
    """Texts that are tokenized and laid out in forward passes."""

    texts: Sequence[Text]
    """Those of two segments window by window."""

    tokens: TokenBatch
    packs: Packs


class ExtractionJob:
    """A loaded backbone that runs what stores lack, block by block; its self-check is done for the first one."""

    def __init__(
        self,
        runner: BackboneRunner,
        asked: CapturePlan,
        progress: Progress,
        advance: Callable[[int], None] | None = None,
        all_texts: int | None = None,
        distribution: Distribution | None = None,
    ) -> None:
        """Run nothing yet.

        Args:
            asked: the plan as it was written, before it was resolved; its prompt is recorded.
            advance: called with the number of texts of each pack; None shows a bar for each block.
            all_texts: number of texts of all blocks, repeated and stored ones too, if it is known.
            distribution: how packs are shared with other processes; None runs all of them here.
        """
        self._all_texts, self._distribution = all_texts, distribution or Distribution()
        self.runner, self._asked, self._progress, self._advance = runner, asked, progress, advance
        self._bytes, self._largest, self._is_told = 0, 0.0, False
        self._checked: dict[str, tuple[int, ...]] = {}
        self._read_back = list[Columns]()

    def windows(self, texts: Sequence[Text]) -> list[Text]:
        """Return texts, those of two segments window by window."""
        plan = self.runner.plan
        return windowed(self.runner.backbone.tokenizer, texts, plan.token_limit, plan.overlap)[0]

    def lay_out(self, texts: Sequence[Text], characters: bool) -> LaidOut:
        """Tokenize and lay out texts for :meth:`run`; on any thread.

        Args:
            characters: whether the characters that tokens cover are asked for.
        """
        windows = self.windows(texts)
        return LaidOut(windows, *self.runner.tokenize_and_pack(windows, characters))

    def run(
        self,
        store: LatentStore,
        texts: Sequence[Text],
        missing: Missing,
        following: int = 0,
        safe: str = NOTHING_RUN,
        packs: Packs | None = None,
        laid_out: LaidOut | None = None,
    ) -> int:
        """Run the latents that a store lacks, and append them; return the number of texts that ran here.

        Args:
            following: number of texts that are known to be missing in later blocks: the bytes of all are announced.
            safe: what is safe if the block is refused, a sentence.
            packs: rows of each forward pass, if they were laid out elsewhere; None lays them out.
            laid_out: texts that were tokenized and laid out ahead, used if they are those of the run.

        Raises:
            InputError: a text cannot be used, or the latents exceed ``extract.max_bytes``.
            MachineError: the disk is full, memory is short, or the self-check failed.
        """
        runner, is_whole = self.runner, packs is None and self._distribution.share == 1
        characters = any(TOKENS in columns for columns, _ in missing)
        if laid_out and laid_out.texts == texts and (laid_out.tokens.characters is not None or not characters):
            tokens, packs = laid_out.tokens, laid_out.packs
        else:
            tokens = runner.tokenize(texts, characters)
            packs = runner.pack(tokens) if packs is None else packs
        missing = self._distribution.own(packs, tokens, missing)
        if not missing:
            return 0
        todo = np.sort(np.concatenate([members for _, members in missing]))
        self._announce(store, tokens, todo, missing, following, safe)
        if self._distribution.hand_out(BlockWork(runner, self._asked, store, texts, tokens, packs, missing)):
            return 0
        check = SelfCheck(runner, texts, tokens) if self._is_unchecked(missing) else None
        if check:
            self._check_before_run(check, todo, union_of_columns(columns for columns, _ in missing))
        provenance = _provenance(runner, self._largest, self._asked)
        run_lengths = tokens.run_lengths
        claim = self._claimed(store) if is_whole else nullcontext()
        with claim, self._bar(len(todo), int(run_lengths[todo].sum())) as advance:
            for columns, members in missing:
                tokens_per_text = float(tokens.viewed_lengths[members].mean())
                read_back = ReadBack(check, columns) if check and columns not in self._read_back else None
                runner.on_forward = read_back.watch if read_back else None
                with (
                    ShardWriter(store, columns, provenance, runner.spec, tokens_per_text, read_back) as writer,
                    closing(runner.blocks(packs, members, tokens, texts, columns)) as blocks,
                ):
                    for indices, block in blocks:
                        writer.add(block)
                        advance(len(block.keys), int(run_lengths[indices].sum()))
                if read_back:
                    self._read_back.append(columns)
        runner.on_forward = None  # it holds the texts of the block
        return len(todo)

    @contextmanager
    def _claimed(self, store: LatentStore) -> Iterator[None]:
        """Say once if another process extracts latents of the same store."""
        with folder_lock(store.path) as is_free:
            if not is_free and not self._is_told:
                self._is_told = True
                self._progress.note(
                    f"an equal extraction is under way in another process ({store.path}); this one goes on beside it"
                )
            yield

    @contextmanager
    def _bar(self, texts: int, tokens: int) -> Iterator[Callable[[int, int], None]]:
        """Yield a function that is called with the texts of each pack, and the tokens that it ran."""
        if shared := self._advance:
            yield lambda ran, _: shared(ran)
            return
        expected = Eta(self._progress, tokens, after=1.0)
        with self._progress.bar(f"{self.runner.source.name} on texts", texts) as advance:

            def both(ran: int, ran_tokens: int) -> None:
                expected.advance(ran_tokens)
                advance(ran)

            yield both

    def _is_unchecked(self, missing: Missing) -> bool:
        """Return whether some columns were not checked in an earlier block."""
        return not all(columns in self._read_back for columns, _ in missing)

    def _check_before_run(self, check: SelfCheck, todo: NDArray[np.int64], columns: Columns) -> None:
        """Do the self-check, unless it was done with these columns in an earlier block."""
        if all(set(layers) <= set(self._checked.get(view, ())) for view, layers in columns.items()):
            return
        rounding = check.check_before_run(todo, columns)
        self._progress.note(f"self-check: passed; {rounding}")
        self._largest = max(self._largest, rounding.largest)
        self._checked = union_of_columns([self._checked, columns])

    def _announce(
        self,
        store: LatentStore,
        tokens: TokenBatch,
        todo: NDArray[np.int64],
        missing: Missing,
        following: int,
        safe: str,
    ) -> None:
        """Note the size of a run; refuse it if it takes more bytes than allowed, or than the disk has free."""
        source, spec = self.runner.source, self.runner.spec
        of_block = sum(stored_bytes(self.runner, tokens, columns, members) for columns, members in missing)
        share = 1 + following / len(todo)
        size = round(of_block * share)
        about = "about " if following else ""
        if spec.max_bytes and self._bytes + size > spec.max_bytes:
            before = f", those of the blocks before took {self._bytes:,}," if self._bytes else ""
            raise SpecError(
                f"the latents take {about}{size:,} bytes{before} and extract.max_bytes = {spec.max_bytes:,}; ask for "
                f"fewer layers or views, for fewer texts (corpus.limit), or raise extract.max_bytes. {safe}"
            )
        existing = next(path for path in (store.path, *store.path.parents) if path.exists())
        free = shutil.disk_usage(existing).free
        if size > free:
            raise MachineError(
                f"{existing}: the latents take {about}{size / 1e9:.2f} GB and {free / 1e9:.2f} GB are free; set "
                f"extract.cache to another disk, or ask for fewer layers or views. {safe}"
            )
        if not self._bytes:
            store.folder.check_writable()
            count, tokens_run = round(len(todo) * share), round(int(tokens.run_lengths[todo].sum()) * share)
            self._progress.note(
                f"{source.name}: {source.layers} layers of width {source.width}, {store.identity.compute_dtype} on "
                f"{self.runner.backbone.device.type}; {count:,} texts, {about}{tokens_run:,} tokens, "
                f"{about}{size / 1e6:,.1f} MB to {store.path}, in {store.identity.stored_dtype}"
                + self._note_on_blocks(following, size / len(todo))
            )
        self._bytes += of_block

    def _note_on_blocks(self, following: int, bytes_of_text: float) -> str:
        if not self._advance:
            return ""
        which = "" if following else "; these are the first block"
        if self._all_texts and not following:
            most = bytes_of_text * self._all_texts / 1e6
            which += f", all {self._all_texts:,} take about {most:,.1f} MB if none is stored or occurs twice"
        return f"{which}; in blocks of {self.runner.spec.block_texts:,} texts (extract.block_texts)"


def stored_bytes(runner: BackboneRunner, tokens: TokenBatch, columns: Columns, members: NDArray[np.int64]) -> int:
    """Return the bytes that the latents of the texts ``members`` take on disk, except for a few kB per shard."""
    return Capacity(
        texts=len(members),
        tokens=int(tokens.viewed_lengths[members].sum()),
        columns=columns,
        width=runner.source.width,
        stored_dtype=runner.identity.stored_dtype,
    ).bytes


def _provenance(runner: BackboneRunner, self_check: float, asked: CapturePlan) -> dict[str, Any]:
    source, device = runner.source, runner.backbone.device
    gpu = device.type == "cuda"
    return {
        "backbone": source.name,
        "revision": source.revision,
        "adapter": runner.plan.adapter,
        "tokenizer": runner.plan.tokenizer,
        "template": asked.template,
        "system": asked.system,
        "longest": source.longest,
        "layers": source.layers,
        "init": init_name(runner.plan),
        "parameters": runner.backbone.parameter_count,
        "self_check": self_check,
        "device": torch.cuda.get_device_name(device) if gpu else f"{device.type} ({machine_name()})",
        "host": platform.node(),
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__}
        | {package: package_version(package) for package in ("transformers", "h5py", "numpy")},
    }

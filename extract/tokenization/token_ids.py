"""Tokenization of texts by a plan, without loading any weights, and the texts that a plan refuses."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from permafrost.data.digests import digest_of_parts
from permafrost.data.machine import package_version
from permafrost.data.memo import Memo
from permafrost.data.plan.plan import TEXT, CapturePlan, ExtractSpec
from permafrost.data.ragged import TokenIndex, covering_ranges
from permafrost.data.remote.mirror import local_cache
from permafrost.data.spec import SpecError, fingerprint
from permafrost.data.store.keys import text_keys
from permafrost.data.text import Text, TextError, check_unsplit
from permafrost.extract.architecture.configuration import canonical_json
from permafrost.extract.backbones.file_digest import MEMO
from permafrost.extract.backbones.locate import Source, find_backbone
from permafrost.extract.backbones.tokenizer import load_tokenizer
from permafrost.extract.tokenization.prompt import resolve_prompt
from permafrost.extract.tokenization.rewording import reword
from permafrost.extract.tokenization.token_batch import TokenBatch
from permafrost.extract.tokenization.tokenize import no_token, tokenize, windowed

if TYPE_CHECKING:  # a run whose latents are all stored does without tokenizers
    from tokenizers import Tokenizer


def check_texts(plan: CapturePlan, texts: Sequence[Text]) -> None:
    """Raise :class:`SpecError` if a plan has a template or a rewording, and some texts have two segments."""
    if all(isinstance(text, str) for text in texts):
        return
    defaults = {"template": TEXT, "rewording": (), "add_special_tokens": True}
    for key, default in defaults.items():
        if (value := getattr(plan, key)) != default:
            raise SpecError(
                f"plan.{key} = {value!r} is for texts of one segment, and this corpus has texts of two; leave it out."
            )


def refuse_long_texts(texts: Sequence[Text], uncut: NDArray[np.integer[Any]], plan: CapturePlan) -> None:
    """Raise :class:`TextError` that names the longest of the texts that exceed ``plan.max_tokens``.

    Args:
        uncut: ``[text]``, tokens before truncation.
    """
    longest, count = int(np.argmax(uncut)), int((uncut > plan.token_limit).sum())
    raise TextError(
        f"{count:,} texts exceed plan.max_tokens = {plan.token_limit}, the longest has {int(uncut[longest])} tokens "
        f'({str(texts[longest])[:40]!r}...); raise it, or set plan.truncation = "cut" or "windows". Nothing was run.',
        texts[longest],
    )


def tokenize_by_plan(
    plan: CapturePlan, source: Source, tokenizer: "Tokenizer", texts: Sequence[Text], characters: bool
) -> TokenBatch:
    """Reword and tokenize a whole request.

    Args:
        plan: as :func:`permafrost.extract.tokenization.prompt.resolve_prompt` returns it.
        characters: whether to return the characters of the text that each token covers.

    Raises:
        TextError: a text has no token, or is longer than the plan allows.
        BackboneError: the tokenizer is that of another model.
        SpecError: the template alone fills ``max_tokens``.
    """
    reworded = [reword(str(text), plan.rewording) for text in texts] if plan.rewording else texts
    own_views = [view for view in plan.views if view in plan.text_views]
    tokens = tokenize(
        tokenizer,
        reworded,
        plan.template,
        plan.token_limit,
        characters or bool(own_views),
        plan.overlap,
        plan.add_special_tokens,
    )
    source.check_ids(tokens.ids)
    if plan.truncation == "refuse" and (tokens.uncut > plan.token_limit).any():
        refuse_long_texts(texts, tokens.uncut, plan)
    if own_views:
        assert tokens.characters is not None
        own = covering_ranges(tokens.characters, tokens.offsets)
        if not (own[:, 1] > 0).all():
            raise no_token(texts[int(np.argmin(own[:, 1]))])
        tokens = replace(tokens, own=own, own_views=plan.text_views)
    return tokens


def check_token_ids(plan: CapturePlan, texts: Sequence[Text], cache: str) -> int:
    """Return the maximum number of tokens of a text; raise what :func:`read_token_ids` raises for the same arguments.

    Texts that passed are remembered.
    """
    source, memo = find_backbone(plan, cache), Memo(local_cache(cache) / MEMO)
    versions = [str(package_version(package)) for package in ("transformers", "tokenizers")]
    settings = replace(resolve_prompt(plan, source, memo), backbone="", revision="", layers="all")
    subject = [source.tokenizer_files.digest, *versions, canonical_json(source.config), fingerprint(settings)]
    key = f"tokenized {digest_of_parts([*map(str.encode, subject), text_keys(texts).tobytes()])}"

    def tokenize_all() -> str:
        read_token_ids(plan, texts, cache)
        return ""

    memo.get(key, tokenize_all)
    return settings.token_limit


def read_token_ids(
    plan: CapturePlan, texts: Sequence[Text], cache: str = ExtractSpec.cache
) -> tuple[TokenBatch, TokenIndex]:
    """Tokenize ``texts`` as an extraction of the same plan does, for blocks that are trained from the embeddings on.

    Args:
        cache: folder of the latent stores.

    Returns:
        the tokens of every window, all windows of a text one after another, and where those of each text are.

    Raises:
        BackboneError: the backbone is not on this machine, has no tokenizer, or has that of another model.
        TextError: a text has no token, or is longer than the plan allows.
        SpecError: the template alone fills ``max_tokens``, texts of two segments meet a template or a rewording, or a
            text of one segment is split into windows.
    """
    check_texts(plan, texts)
    source = find_backbone(plan, cache)
    plan = resolve_prompt(plan, source, Memo(local_cache(cache) / MEMO))
    tokenizer = load_tokenizer(source.tokenizer_files)
    windows, starts = windowed(tokenizer, texts, plan.token_limit, plan.overlap)
    batch = tokenize_by_plan(plan, source, tokenizer, windows, True)
    assert batch.characters is not None
    tokens = TokenIndex(offsets=batch.offsets, spans=batch.characters, starts=starts)
    check_unsplit(tokens.longest, plan.token_limit)
    return batch, tokens

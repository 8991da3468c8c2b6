"""A rewording changes what it names and nothing else, and is part of what a store is."""

import pytest

from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.spec import SpecError
from permafrost.data.text import TextError
from permafrost.extract.extractor import Extractor
from permafrost.extract.tokenization.rewording import reword


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ((), "A Dog saw a cat, a man."),
        (("lower_case",), "a dog saw a cat, a man."),
        (("no_final_stop",), "A Dog saw a cat, a man"),
        (("a=the",), "A Dog saw the cat, the man."),
        (("man=woman \\1", "no_final_stop", "lower_case"), "a dog saw a cat, a woman \\1"),
    ],
)
def test_a_change_does_what_it_says(changes, expected):
    assert reword("A Dog saw a cat, a man.", changes) == expected


@pytest.mark.parametrize(
    ("text", "changes", "expected"),
    [
        ("然后野马队赢了比赛。", ("野马=丹佛", "no_final_stop"), "然后丹佛队赢了比赛"),
        ("在NBA比赛", ("NBA=CBA", "BA=x"), "在CBA比赛"),
        ("ที่นี่นี", ("นี=x",), "ที่นี่x"),  # not a character that has further marks
        ("दिल दिल्ली। दिल।", ("दिल=मन", "no_final_stop"), "मन दिल्ली। मन"),
        ("कि क", ("क=x",), "कि x"),
        ("كِتَاب كِتَابٌ؟", ("كِتَاب=قلم", "no_final_stop"), "قلم كِتَابٌ"),
        ("می\u200cروم می", ("می=x",), "می\u200cروم x"),
        ("cafe\u0301 cafe", ("cafe=bar",), "cafe\u0301 bar"),
        ("Straßenbahn Straße", ("Straße=Weg",), "Straßenbahn Weg"),
    ],
)
def test_a_whole_word_is_one_in_every_script(text, changes, expected):
    assert reword(text, changes) == expected


def test_nothing_left_is_refused():
    with pytest.raises(TextError, match="leaves nothing of it"):
        reword("...", ["no_final_stop"])


@pytest.mark.parametrize("change", ["upper_case", "=x", "two words=one"])
def test_an_unknown_change_is_refused(change):
    with pytest.raises(SpecError, match="rewording"):
        CapturePlan(rewording=(change,))


def test_a_reworded_text_has_the_latents_of_what_it_became_and_a_store_of_its_own(tiny, tmp_path):
    folder, spec = str(tiny("bert")), ExtractSpec(cache=str(tmp_path))
    plain = Extractor(CapturePlan(backbone=folder, max_tokens=32, compute_dtype="float32"), spec)
    lower = Extractor(
        CapturePlan(backbone=folder, max_tokens=32, compute_dtype="float32", rewording=("lower_case",)), spec
    )
    columns = {"mean": (0, 1, 2, 3)}
    assert (lower(["The Dog runs"], columns)["mean"] == plain(["the dog runs"], columns)["mean"]).all()
    assert plain.identity.differences(lower.identity) == ["rewording"]

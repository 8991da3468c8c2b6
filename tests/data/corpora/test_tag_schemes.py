"""Schemes of tags: what is written in one is found and read back; slips are repaired and counted, mixtures refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import BILOU, IOB1, IOB2, IOBES, IOE2, Entities

from permafrost.data.corpora.records import CorpusError, Span
from permafrost.data.corpora.tag_schemes import SCHEMES, TagScheme, find_scheme
from tests.support.marks import slow_but_first

STYLES = {"B-PER": "{0}-{1}", "B_PER": "{0}_{1}", "PER-B": "{1}-{0}", "PER_B": "{1}_{0}"}

LETTERS = {"BILOU": {"E": "L", "S": "U"}, "BMEWO": {"I": "M", "S": "W"}, "BMES": {"I": "M"}}

PEERS = {"IOB1": IOB1, "IOB2": IOB2, "IOE2": IOE2, "BIOES": IOBES, "BILOU": BILOU}

TYPES = ("PER", "LOC", "work_of_art", "b-side")

Entity = tuple[str, int]
"""Type and number of words; a word outside has no type."""

SENTENCES = st.lists(st.lists(st.tuples(st.sampled_from(("", *TYPES)), st.integers(1, 4)), min_size=1), min_size=1)


def write(sentence: list[Entity], scheme: str, style: str = "{0}-{1}") -> list[str]:
    """The tags of a sentence, one entity after another."""
    tags = []
    neighbours = [("", 0), *sentence, ("", 0)]
    for number, (name, length) in enumerate(sentence, 1):
        letters = ["I"] * length
        if scheme == "IOB2" or (scheme == "IOB1" and neighbours[number - 1][0] == name):
            letters[0] = "B"
        elif scheme == "IOE2" or (scheme == "IOE1" and neighbours[number + 1][0] == name):
            letters[-1] = "E"
        elif scheme in ("BIOES", *LETTERS):
            letters = ["B", *letters[1:-1], "E"] if length > 1 else ["S"]
        letters = [LETTERS.get(scheme, {}).get(letter, letter) for letter in letters]
        tags += [style.format(letter, name) if name else "O" for letter in letters]
    return tags


def spans(tags: list[str], sentence: int = 1) -> list[Span]:
    return [Span(0, 1, tag, f"f:{sentence}:{word}") for word, tag in enumerate(tags, 1)]


def read(scheme: TagScheme, tags: list[str]) -> list[str]:
    return [span.tag for span in scheme.to_iob2(spans(tags))]


def merged(sentence: list[Entity]) -> list[Entity]:
    """The sentence with entities of a type that touch as one."""
    joined: list[Entity] = []
    for name, length in sentence:
        joined.append((name, length + (joined.pop()[1] if joined and joined[-1][0] == name else 0)))
    return joined


@pytest.mark.parametrize("style", slow_but_first(STYLES))
@pytest.mark.parametrize("scheme", [*SCHEMES, *LETTERS])
@given(sentences=SENTENCES)
def test_entities_are_read_back_whatever_the_scheme(scheme, style, sentences):
    written = [write(sentence, scheme, STYLES[style]) for sentence in sentences]
    found = find_scheme(map(spans, written), strict=True)
    meant = map(merged, sentences) if scheme == "IO" else sentences
    assert [read(found, tags) for tags in written] == [write(sentence, "IOB2") for sentence in meant]
    assert [write(sentence, found.name, STYLES[style]) for sentence in sentences] == written
    assert not found.repairs


@pytest.mark.parametrize("scheme", PEERS)
@given(sentences=SENTENCES)
def test_entities_are_those_of_seqeval(scheme, sentences):
    written = [write(sentence, scheme) for sentence in sentences]
    scheme_found = find_scheme(map(spans, written))
    found = Entities([read(scheme_found, tags) for tags in written], scheme=IOB2).entities
    expected = Entities(written, scheme=PEERS[scheme]).entities
    assert [[entity.to_tuple() for entity in entities] for entities in found] == [
        [entity.to_tuple() for entity in entities] for entities in expected
    ]


@given(st.lists(st.sampled_from(["O", *(f"{letter}-{name}" for letter in "BIES" for name in "XY")])))
def test_tags_in_any_order_are_read_as_conlleval_does(tags):
    expected = ["O"] * len(tags)
    for name, first, last in get_entities(tags):
        expected[first : last + 1] = [f"B-{name}", *[f"I-{name}"] * (last - first)]
    assert read(find_scheme([spans(tags)], setting="BIOES"), tags) == expected


def test_letters_alone_and_types_alone_are_tags_too():
    letters = find_scheme([spans(["B", "I", "O", "B"])])
    assert read(letters, ["B", "I", "O"]) == ["B-ENTITY", "I-ENTITY", "O"]
    assert letters.notes() == ("tags are IOB2, as in 'B', read as IOB2",)
    types = find_scheme([spans(["O", "PER", "PER", "O", "LOC"])])
    assert read(types, ["O", "PER", "PER", "LOC"]) == ["O", "B-PER", "I-PER", "B-LOC"]
    assert types.notes() == ("tags are IO, as in 'PER', read as IOB2",)


def test_iob2_is_read_without_a_word():
    assert find_scheme([spans(["B-X", "I-X", "O"])]).notes() == ()
    assert find_scheme([spans(["O"])]).notes() == ()


def test_without_a_b_tag_io_and_iob1_are_one():
    assert find_scheme([spans(["I-X", "I-X", "O"])]).notes() == ("tags are IO or IOB1, as in 'I-X', read as IOB2",)


MEANT = ["B-X", "I-X", "O", "B-Y"]


def test_what_a_scheme_does_not_write_is_repaired_counted_and_refused_if_strict():
    sentences = [spans(MEANT), spans(MEANT, 2), spans(["I-X", "I-Y", "O", "I-Y"], 3)]
    found = find_scheme(sentences)
    assert read(found, ["I-X", "I-Y", "O", "I-Y"]) == ["B-X", "B-Y", "O", "B-Y"]
    assert found.notes() == (
        "3 of 7 entities are not written as in IOB2 and were repaired; the first: f:3:1: 'I-X' begins a sentence; "
        "expected B-X",
    )
    with pytest.raises(CorpusError, match=r"^f:3:1: .*; expected B-X in IOB2\. Correct it, or leave out --strict"):
        find_scheme(sentences, strict=True)


def test_iob1_needs_no_repair_and_its_own_slips_are_told():
    sentences = [spans(["I-X", "B-X", "I-Y", "O", "I-Y"])]
    assert find_scheme(sentences, strict=True).notes() == ("tags are IOB1, as in 'B-X', read as IOB2",)
    found = find_scheme([*sentences, spans(["O", "B-Y"], 2)])
    assert found.notes()[1].endswith("the first: f:2:2: 'B-Y' follows 'O'; expected I-Y")


def test_a_slip_is_told_in_the_letters_of_the_corpus():
    found = find_scheme([spans(["U-X", "O", "B-X", "L-X", "O", "B-X"])])
    assert found.repairs.endswith("f:1:6: 'B-X' follows 'O'; expected U-X")


def test_a_corpus_that_mixes_schemes_is_refused_unless_the_scheme_is_named():
    sentences = [spans(["I-X", "O"])] * 20 + [spans(["O", "B-X"], 2)] * 30
    with pytest.raises(CorpusError) as error:
        find_scheme(sentences)
    assert str(error.value) == (
        "f:1:1: 'I-X' begins a sentence; expected B-X; 20 of 50 entities are not written as "
        'in IOB2: the corpus mixes schemes. Correct it, or set corpus.tag_scheme = "IOB2" to have all of them repaired.'
    )
    assert read(find_scheme(sentences, "IOB2"), ["I-X"]) == read(find_scheme(sentences, "IOB1"), ["I-X"]) == ["B-X"]


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        (["E-X", "O", "L-X"], "f:1:3: 'L-X' and 'E-X' (f:1:1) are of two schemes; write E for L in the tags"),
        (["B-X", "PER", "O"], "f:1:2: 'PER' is no tag: expected O, B-TYPE or I-TYPE, as in B-PER, or another scheme"),
        (["B-X", "X-B", "B-X"], "f:1:2: 'X-B' is no tag"),
        (["B-X", "B-"], "f:1:2: 'B-' is no tag"),
        (
            ["NN", "I", "NN", "O"],
            "f:1:1: 'NN' is no tag: .*most are 'NN'.*corpus.columns=1,4.*tag_scheme = \"IO\"",
        ),
        (["O", "O", "PER", "B"], "f:1:3: 'PER' is no tag: .*others are as 'B' (f:1:4)"),
        (["0", "1"], "f:1:1: '0' is no tag: .*corpus.labels=O,B-PER,I-PER"),
        (["O", ""], "f:1:2: the tag is missing."),
    ],
)
def test_what_is_no_tag_is_told_with_its_place_and_the_way_out(tags, message):
    with pytest.raises(CorpusError, match=message.replace("(", r"\(").replace(")", r"\)")):
        find_scheme([spans(tags)])


def test_types_that_look_like_tags_can_be_said_to_be_types():
    tags = ["NN", "NN", "E-mail", "O"]
    assert read(find_scheme([spans(tags)], "IO"), tags) == ["B-NN", "I-NN", "B-E-mail", "O"]
    assert read(find_scheme([spans(["I-X", "O"])], "IO"), ["I-X", "O"]) == ["B-X", "O"]

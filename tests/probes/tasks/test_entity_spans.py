"""Entities and answers of raw text: stretches of what was given, as the run that was trained would have said them."""

import json
import shutil
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from seqeval.metrics.sequence_labeling import get_entities

from permafrost import api
from permafrost.data.corpora.records import CorpusError
from permafrost.data.text import Segments
from permafrost.data.writing.script import is_mark
from permafrost.probes.objectives.tokens import IMPOSSIBLE_LOGIT, SpanObjective
from permafrost.probes.prediction import predictor as prediction
from permafrost.probes.results.run_folder import RunError
from permafrost.probes.tasks import entity_spans
from permafrost.probes.tasks.entity_spans import find_entities
from tests.support.bench import Bench
from tests.support.damage import resealed
from tests.support.models.backbones import WORDS

NAMES = [word.title() for word in WORDS[:12]]
TEXT = "The  Dog, then Small\tGrass; near the Stove in winter. It sleeps (Over the Dog)."


def tagged_file(path, seed=0):
    """Sentences in which one or two capitalised words are a place after "near", else a person."""
    rng, lines = np.random.default_rng(seed), []
    for split in ["train"] * 60 + ["validation"] * 15 + ["test"] * 15:
        lines.append(f"# split = {split}")
        for _ in range(rng.integers(1, 4)):
            near = bool(rng.integers(2))
            lines += [f"{word} O" for word in rng.choice(WORDS[3:10], rng.integers(1, 3))]
            lines += ["near O"] if near else ["and O"]
            names = rng.choice(NAMES, rng.integers(1, 3), replace=False)
            lines += [f"{name} {'I' if place else 'B'}-{'LOC' if near else 'PER'}" for place, name in enumerate(names)]
        lines += [". O", ""]
    path.write_text("\n".join(lines), "utf-8")
    return path


@pytest.fixture(scope="module")
def token_runs(tmp_path_factory, tiny):
    """A run of tags and one of answers, each on a tiny backbone."""
    bench = Bench(tmp_path_factory.mktemp("tokens"), tiny("bert"))
    recipe = bench.folder / "own.toml"
    recipe.write_text('[probe]\nencoder = "none"\nmixer = "softmax"\n[train]\nlearning_rate = 0.02\nbatch_rows = 8\n')
    tags = [f"corpus.path={tagged_file(bench.folder / 'own.conll')}", "corpus.target=tags", "train.epochs=25"]
    tags += ["train.seeds=0,1", "train.average=true", "probe.context=bilstm", "probe.context_width=16"]
    questions = ["corpus.name=samples-questions", "plan.max_tokens=48", "plan.truncation=windows", "plan.stride=8"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("permafrost.probes.reports.report.write_report", lambda folder: None)
        patch.setattr("permafrost.probes.metrics.bootstrap.RESAMPLES", 50)
        done = {
            kind: api.run(str(recipe), bench.settings("plan.views=tokens", *more), bench.runs)
            for kind, more in (("tags", tags), ("answers", questions))
        }
    return bench, {kind: api.load(one.path) for kind, one in done.items()}


def questions_of(predictor):
    table = pd.read_csv(predictor.tasks["probe"].path / "predictions.csv", keep_default_na=False)
    return table, list(zip(table["question"], table["context"], strict=True))


def asked(predictor, kind):
    if kind == "answers":
        return questions_of(predictor)[1][:12]
    rng = np.random.default_rng(4)
    lengths = rng.integers(2, 9, 40)
    return [TEXT, *((f"{' '.join(rng.choice([*WORDS, *NAMES], length))}.",) for length in lengths)]


def test_entities_are_stretches_of_the_text_as_it_was_given(token_runs):
    predictor = token_runs[1]["tags"]
    texts = [TEXT, "the dog runs.", "over green and Dog", "over green grass\u00a0and Small  Dog runs\nnear\tStove."]
    found = predictor.predict(texts)
    assert sum(len(one["entities"]) for one in found) >= 5
    for text, one in zip(texts, found, strict=True):
        places = [(entity["start"], entity["end"]) for entity in one["entities"]]
        assert places == sorted(places)
        for entity in one["entities"]:
            assert set(entity) == {"text", "start", "end", "label", "probability"}
            assert text[entity["start"] : entity["end"]] == entity["text"] == entity["text"].strip()
            assert entity["label"] in ("PER", "LOC")
            assert 0 < entity["probability"] <= 1


def test_a_loaded_run_tags_its_test_sentences_as_the_run_did(token_runs):
    predictor = token_runs[1]["tags"]
    table = pd.read_csv(predictor.tasks["probe"].path / "predictions.csv")
    sentences = [rows for _, rows in table.groupby("sentence")]
    said = predictor.predict([" ".join(rows["word"]) for rows in sentences])
    expected = []
    for rows in sentences:
        starts = np.cumsum([0, *(len(word) + 1 for word in rows["word"])])
        found = get_entities(rows["label"].tolist())
        expected.append([(label, starts[first], starts[last + 1] - 1) for label, first, last in found])
    assert [[(one["label"], one["start"], one["end"]) for one in answer["entities"]] for answer in said] == expected
    assert sum(map(len, expected)) > 10


def test_answers_are_exact_substrings_of_their_context(token_runs):
    predictor = token_runs[1]["answers"]
    _, items = questions_of(predictor)
    for (_, context), one in zip(items, predictor.predict(items), strict=True):
        answer = one["answer"]
        assert set(answer) == {"text", "start", "end", "score"}
        assert context[answer["start"] : answer["end"]] == answer["text"]
        assert answer["text"] == answer["text"].strip() != ""
        assert 0 < answer["score"] <= 1


@pytest.mark.parametrize(
    ("context", "said", "wanted"),
    [
        ("然后野马队赢了比赛", "野马队", "野马队"),
        ("在2016年，野马队赢了", "01", "2016"),
        ("トヨタ自動車は車を作る。", "トヨタ", "トヨタ"),
        ("อันนาสร้างหอคอยที่นี่", "ที", "ที่"),
        ("नई दिल्ली राजधानी है।", "नई दिल्ल", "नई दिल्ली"),
        ("عاش فِي القَاهِرَةِ.", "القَاهِرَة", "القَاهِرَةِ"),
        ("Die Straßenbahn fährt.", "Straß", "Straßenbahn"),
    ],
)
def test_a_predicted_answer_is_whole_and_no_more_in_every_script(context, said, wanted, token_runs, monkeypatch):
    predictor, first = token_runs[1]["answers"], context.index(said)
    monkeypatch.setattr(SpanObjective, "predict_mean", lambda *_: np.array([[first, first + len(said), 0.5]]))
    (found,) = predictor.predict([("who?", context)])
    assert found["answer"]["text"] == wanted == context[found["answer"]["start"] : found["answer"]["end"]]


def test_a_loaded_run_answers_its_test_questions_as_the_run_did_through_windows(token_runs):
    predictor = token_runs[1]["answers"]
    table, items = questions_of(predictor)
    said = [one["answer"] for one in predictor.predict(items)]
    windows = predictor._extractors["probe", ""].windowed([Segments(*item) for item in items])[1]
    assert np.diff(windows).max() > 1
    assert [one["text"] for one in said] == table["answer"].tolist()
    assert [one["start"] for one in said] == table["start"].tolist()
    assert [one["end"] for one in said] == table["end"].tolist()
    np.testing.assert_allclose([one["score"] for one in said], table["score"], atol=1e-3)


@pytest.mark.parametrize("kind", ["tags", "answers"])
def test_neither_order_nor_repeats_change_what_is_found(kind, token_runs):
    predictor = token_runs[1][kind]
    items = asked(predictor, kind)
    said = predictor.predict(items)
    assert predictor.predict(items[::-1])[::-1] == said
    assert predictor.predict(items + items[::-1]) == said + said[::-1]


DAMAGES = {
    "labels that are no tags": ("tags", {"labels": ["O", "B-PER", "PER"]}, "are no IOB2 tags, 'O' first"),
    "labels without O": ("tags", {"labels": ["B-PER", "I-PER"]}, "are no IOB2 tags, 'O' first"),
    "no labels": ("tags", {"labels": []}, "are no IOB2 tags, 'O' first"),
    "a label twice": (
        "tags",
        {"labels": ["O", "B-PER", "B-PER"]},
        "labels of probe.safetensors are not distinct names",
    ),
    "labels that are no names": ("tags", {"labels": [["O"]]}, "labels of probe.safetensors are not distinct names"),
    "a label that no file can hold": ("tags", {"labels": ["O", "B-\ud800"]}, "are not distinct names"),
    "fewer labels than weights": ("tags", {"labels": ["O", "B-PER", "I-PER"]}, "does not have the weights"),
    "tags of classes": ("tags", {"kind": "class"}, "recipe does not fit|does not have the weights"),
    "tags of answers": ("tags", {"kind": "answers"}, "does not have the weights"),
    "answers of tags": ("answers", {"kind": "tags", "labels": ["O", "B-X", "I-X"]}, "does not have the weights"),
    "two texts a row": ("answers", {"sides": 2}, "is not what its description says"),
    "an unknown kind": (
        "answers",
        {"kind": "replies"},
        "a probe for 'replies' is unknown; this version has score, class",
    ),
    "a kind that is no name": ("answers", {"kind": ["tags"]}, r"a probe for \['tags'\] is unknown"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_folder_that_does_not_fit_together_is_refused(damage, token_runs, tmp_path):
    kind, changes, message = DAMAGES[damage]
    folder = shutil.copytree(token_runs[1][kind].tasks["probe"].path, tmp_path / "run")
    with safe_open(folder / "probe.safetensors", "pt") as file:
        about = json.loads(file.metadata()["about"]) | changes
    save_file(load_file(folder / "probe.safetensors"), folder / "probe.safetensors", {"about": json.dumps(about)})
    resealed(folder)
    with pytest.raises(RunError, match=message):
        api.load(folder)


@pytest.mark.parametrize("damage", ["head", "context"])
def test_a_recipe_that_does_not_fit_the_weights_is_refused(damage, token_runs, tmp_path):
    folder = shutil.copytree(token_runs[1]["tags"].tasks["probe"].path, tmp_path / "run")
    text = (folder / "recipe.toml").read_text("utf-8")
    old, new, message = {
        "head": ('head = "auto"', 'head = "span"', "recipe does not fit its weights: probe.head = 'span'"),
        "context": ('context = "bilstm"', 'context = "none"', "does not have the weights that its recipe says"),
    }[damage]
    assert text.count(old) == 1
    (folder / "recipe.toml").write_text(text.replace(old, new), "utf-8")
    resealed(folder)
    with pytest.raises(RunError, match=message):
        api.load(folder)


@pytest.mark.parametrize("kind", ["tags", "answers"])
@pytest.mark.parametrize("texts", [1, 7])
def test_what_is_found_does_not_depend_on_what_else_is_asked(kind, texts, token_runs, monkeypatch):
    predictor = token_runs[1][kind]
    items = asked(predictor, kind)
    together, sizes, inputs_of = predictor.predict(items), [], predictor._inputs
    monkeypatch.setattr(prediction, "SLICE_TEXTS", texts)

    def counted(task, some):
        sizes.append(len(some))
        return inputs_of(task, some)

    monkeypatch.setattr(predictor, "_inputs", counted)
    for one, other in zip(predictor.predict(items), together, strict=True):
        (found,), (expected,) = one.values(), other.values()
        pairs_of = zip(found, expected, strict=True) if kind == "tags" else [(found, expected)]
        for part, whole in pairs_of:
            likely = "probability" if kind == "tags" else "score"
            assert part | {likely: 0} == whole | {likely: 0}
            assert part[likely] == pytest.approx(whole[likely], abs=1e-3)  # latents in float16
    assert max(sizes) <= texts
    assert sum(sizes) >= len(set(items))


def test_a_text_that_was_cut_is_read_on(token_runs):
    predictor = token_runs[1]["tags"]
    sentence = "the dog and Dog Small. "
    found = predictor.predict([sentence * 30])[0]["entities"]
    assert found[-1]["start"] > 29 * len(sentence)
    text = (sentence * 30).replace(".", "")  # no sentence ends where it could be cut
    assert predictor.predict([text])[0]["entities"][-1]["start"] > 29 * (len(sentence) - 1)


@pytest.mark.parametrize(("room", "piece"), [(5, 99), (6, 99), (100, 99), (100, 17), (6, 24)])
def test_reading_on_finds_each_entity_once_and_whole(room, piece, monkeypatch):
    text = " Ann Lee ran . Bob Ray sat . Cy met Di Fox . And they sang . "
    monkeypatch.setattr(entity_spans, "MAX_CHARACTERS", piece)

    def predict(texts, rows):
        """Capitalised words are entities, one after another the same one; so many words are read."""
        logits = np.zeros((len(rows.spans.codes), 3), np.float32)
        for row, one in enumerate(texts):
            before = ""
            for place, mark in enumerate(range(*rows.spans.offsets[row : row + 2])):
                word = one[slice(*rows.spans.characters[mark])]
                code = 0 if not word.istitle() or word == "And" else 2 if before.istitle() and before != "And" else 1
                logits[mark, code], before = 9, word
                if place >= room:
                    logits[mark] = [0, IMPOSSIBLE_LOGIT, IMPOSSIBLE_LOGIT]
        return logits

    (found,) = find_entities(("O", "B-PER", "I-PER"), [text], predict)
    assert [one["text"] for one in found] == ["Ann Lee", "Bob Ray", "Cy", "Di Fox"]
    assert all(text[one["start"] : one["end"]] == one["text"] for one in found)


@pytest.mark.parametrize("sentence", ["野马队赢了比赛。", "ที่นี่ดี", "हिन्दी भाषा। "])
def test_a_long_text_is_read_on_between_sentences_and_never_within_a_character(sentence, monkeypatch):
    monkeypatch.setattr(entity_spans, "MAX_CHARACTERS", 20)
    text, pieces = sentence * 9, []

    def predict(texts, rows):
        """Every word is an entity, of the twelve that the backbone reads."""
        pieces.extend(texts)
        logits = np.tile(np.float32([0, 1, 0]), (len(rows.spans.codes), 1))
        for low, high in pairwise(rows.spans.offsets):
            logits[low + 12 : high] = [0, IMPOSSIBLE_LOGIT, IMPOSSIBLE_LOGIT]
        return logits

    (found,) = find_entities(("O", "B-PER", "I-PER"), [text], predict)
    assert "".join(one["text"] for one in found) == "".join(text.split())
    assert not any(is_mark(piece[0]) for piece in pieces)
    if "。" in sentence:
        assert all(piece.startswith(sentence[:1]) for piece in pieces)


def test_a_text_that_is_given_alone_is_one_item(token_runs):
    predictor = token_runs[1]["tags"]
    assert predictor.predict(TEXT) == predictor.predict([TEXT])


REFUSED = {
    "a question alone": ("answers", [("Who ran?",)], r"item 1: this run reads a question and its context.* got 1"),
    "a text": ("answers", [("a", "b"), "Who ran?"], "item 2: this run reads a question and its context"),
    "an empty context": ("answers", [("Who ran?", " ")], "item 1: the context is empty; a question needs a context"),
    "an empty text": ("tags", ["Dog", "\n"], "item 2: the text is empty"),
    "two texts": ("tags", [("Dog", "Stove")], "item 1: this run reads one text an item, got 2"),
    "no text": ("tags", ["Dog", (3,)], "item 2: expected a text or a tuple of texts, got 3, of type int"),
    "half a character": ("tags", ["Dog \ud83d"], "half a character"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_items_that_the_run_cannot_read_are_refused_by_number(case, token_runs):
    kind, items, message = REFUSED[case]
    with pytest.raises(CorpusError, match=message):
        token_runs[1][kind].predict(items)


@pytest.mark.slow
def test_minilm_finds_names_in_their_own_spelling(tmp_path, quick):
    settings = ["corpus.name=samples-tags", "corpus.held_out=0", f"extract.cache={tmp_path / 'cache'}"]
    settings += ["train.seeds=0", "train.epochs=15", "train.metric=accuracy", "probe.context_width=64"]
    done = api.run("ner", [*settings, "extract.device=cpu"], tmp_path / "runs")
    text = "Yesterday Elon  Musk visited Kenya, said Siobhán O'Brien-Smith."
    (found,) = api.load(done.path).predict([text])
    assert {"Elon  Musk", "Siobhán O'Brien-Smith"} <= {one["text"] for one in found["entities"]}
    assert all(text[one["start"] : one["end"]] == one["text"] for one in found["entities"])

"""Files as people have them: each shape is read right, with what is not said found from the file."""

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from permafrost.data.corpora.records import CorpusError
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.readers.load import load_corpus
from permafrost.data.readers.resolve import resolve_corpus

RANDOM = random.Random(0)
WORDS = "the a man woman dog is was playing with red blue ball guitar in park street house near old young".split()  # noqa: SIM905


def sentence() -> str:
    return " ".join(RANDOM.choices(WORDS, k=RANDOM.randint(4, 9))).capitalize()


def noisy() -> str:
    """A sentence with a quotation mark that is not closed, now and then."""
    text = sentence()
    return RANDOM.choice([text, text, f'"{text}', text.replace(" ", ' "', 1), f"{text} #tag, and more"])


def sts_train(folder: Path) -> Path:
    rows = []
    for number in range(200):
        row = ["main-captions", "MSRvid", "2012test", f"{number:04}", f"{number % 51 / 10:.3f}", noisy(), noisy()]
        rows.append("\t".join([*row, *["source", "http://a"][: number % 3]]))
    return written(folder / "sts-train.csv", "\n".join(rows))


def sick(folder: Path) -> Path:
    rows = ["pair_ID\tsentence_A\tsentence_B\tentailment_label\trelatedness_score\tsentence_A_original\tSemEval_set"]
    for number in range(200):
        split = ("TRAIN", "TRAIN", "TRIAL", "TEST")[number % 4]
        row = [str(number), sentence(), sentence(), "NEUTRAL", f"{1 + number % 41 / 10:.1f}", sentence(), split]
        rows.append("\t".join(row))
    return written(folder / "SICK.txt", "\n".join(rows))


def mrpc(folder: Path) -> Path:
    rows = [f"{number % 2}\t{number}\t{number + 1}\t{noisy()}\t{noisy()}" for number in range(200)]
    return written(folder / "msr.txt", "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n" + "\r\n".join(rows))


def sms(folder: Path) -> Path:
    rows = [f"{'spam' if number % 5 == 0 else 'ham'}\t{noisy()}" for number in range(200)]
    return written(folder / "SMSSpamCollection", "\n".join(rows))


def clinc(folder: Path) -> Path:
    sizes = {"oos_val": 5, "val": 20, "train": 100, "oos_test": 5, "test": 30}
    tables = {split: [[sentence(), f"i_{row % 7}"] for row in range(size)] for split, size in sizes.items()}
    return written(folder / "data_full.json", json.dumps(tables))


def trec(folder: Path) -> Path:
    rows = [f"{('DESC', 'ENTY', 'NUM')[number % 3]}:manner {sentence()} ?" for number in range(200)]
    return written(folder / "train_5500.label", "\n".join(rows))


def emobank(folder: Path) -> Path:
    rows = [
        f'x{number},{("train", "dev", "test")[number % 3]},{1.2 + number % 31 / 10:.1f},3,2.5,"{sentence()}, so"'
        for number in range(200)
    ]
    return written(folder / "emobank.csv", "\n".join(["id,split,V,A,D,text", *rows]))


def go_emotions(folder: Path) -> Path:
    (folder / "go").mkdir()
    for split in ("train", "dev", "test"):
        rows = [f"{noisy()}\t{number % 5}{',5' if number % 4 == 0 else ''}\teb{number:04}" for number in range(60)]
        written(folder / "go" / f"{split}.tsv", "\n".join(rows))
    return folder / "go"


def snli(folder: Path) -> Path:
    (folder / "snli_1.0").mkdir()
    for split in ("train", "dev", "test"):
        rows = [
            json.dumps(
                {
                    "annotator_labels": ["neutral"],
                    "captionID": f"{number}.jpg",
                    "gold_label": ("neutral", "entailment", "contradiction")[number % 3],
                    "sentence1": sentence(),
                    "sentence1_parse": f"(ROOT {sentence()})",
                    "sentence2": sentence(),
                    "sentence2_parse": f"(ROOT {sentence()})",
                }
            )
            for number in range(60)
        ]
        written(folder / "snli_1.0" / f"snli_1.0_{split}.jsonl", "\n".join(rows))
        written(folder / "snli_1.0" / f"snli_1.0_{split}.txt", "gold_label\tsentence1\n")
    return folder / "snli_1.0"


def lines(folder: Path) -> Path:
    return written(folder / "lines.txt", "\n".join(f"{sentence()}, {sentence()}" for _ in range(50)))


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="")
    return path


SHAPES: list[tuple[Callable[[Path], Path], str, tuple[str, ...], str, str]] = [
    (
        sts_train,
        "6,7,5",
        ("6", "7", "5"),
        "score",
        "sts-train.csv: tabs, no header, UTF-8; texts: 6, 7; target: 5, a s",
    ),
    (sick, "", ("sentence_A", "sentence_B", "relatedness_score"), "score", "SICK.txt: tabs, header, UTF-8; texts"),
    (mrpc, "", ("#1 String", "#2 String", "Quality"), "class", "msr.txt: tabs, header, UTF-8 with a mark; texts"),
    (sms, "", ("2", "1"), "class", "SMSSpamCollection: tabs, no header, UTF-8; text: 2; target: 1, a class"),
    (clinc, "", ("1", "2"), "class", "data_full.json: JSON, without oos_val (5 rows), oos_test (5 rows); text: 1; tar"),
    (emobank, "text,V", ("text", "V"), "score", "emobank.csv: commas, header, UTF-8; text: text; target: V"),
    (go_emotions, "", ("1", "2"), "labels", "go: tabs, no header, UTF-8; text: 1; target: 2, labels; 3 splits"),
    (snli, "", ("sentence1", "sentence2", "gold_label"), "class", "snli_1.0: JSON lines; texts: sentence1, sentence2"),
    (lines, "", ("sentence",), "none", "lines.txt: one text per line, UTF-8; text: sentence; no target"),
]


@pytest.mark.parametrize(("make", "given", "columns", "kind", "description"), SHAPES)
def test_a_shape_is_read_as_it_is(tmp_path, make, given, columns, kind, description):
    path = make(tmp_path)
    hint = "score" if kind == "score" else ""
    resolved = resolve_corpus(CorpusSpec(path=str(path), columns=tuple(filter(None, given.split(",")))), hint)
    assert (resolved.spec.columns, resolved.spec.target) == (columns, kind)
    assert resolved.description.startswith(description)
    corpus = load_corpus(resolved.spec)
    assert corpus.kind == kind
    assert resolve_corpus(resolved.spec).spec == resolved.spec, "what was found is not found otherwise again"


def test_the_values_are_those_of_the_file(tmp_path):
    corpus = load_corpus(resolve_corpus(CorpusSpec(path=str(sick(tmp_path))), "score").spec)
    assert {split: len(rows) for split, rows in corpus.splits.items()} == {"train": 100, "validation": 50, "test": 50}
    assert corpus.score_range == (1.0, 5.0)
    assert corpus.split("train").targets[:2].tolist() == pytest.approx([0.0, 0.1 / 4])


def test_a_regular_expression_reads_lines(tmp_path):
    spec = CorpusSpec(path=str(trec(tmp_path)), columns=(r"(?P<label>\w+):\S+ (?P<text>.*)",))
    corpus = load_corpus(resolve_corpus(spec).spec)
    assert corpus.labels == ("DESC", "ENTY", "NUM")
    assert corpus.texts[0].endswith(" ?")
    assert ":" not in corpus.texts[0]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("(?P<label>[a-z)", "is no regular expression"),
        ("(?P<label>.*)", "must be text, second (of pairs) and label, got label"),
    ],
)
def test_a_regular_expression_that_cannot_be_read_is_refused(tmp_path, columns, message):
    with pytest.raises(CorpusError) as error:
        resolve_corpus(CorpusSpec(path=str(trec(tmp_path)), columns=(columns,)))
    assert message in str(error.value)


def test_what_is_not_clear_is_asked_with_an_example(tmp_path):
    with pytest.raises(CorpusError, match=r"the target could be any of V, A, D; .*\(--columns\), e\.g\. text,V\."):
        resolve_corpus(CorpusSpec(path=str(emobank(tmp_path))))
    rows = [[sentence(), sentence(), sentence()] for _ in range(30)]
    three = written(tmp_path / "three.tsv", "\n".join(map("\t".join, [["a", "b", "c"], *rows])))
    with pytest.raises(CorpusError, match=r"3 columns hold texts \(a, b, c\); set corpus\.columns"):
        resolve_corpus(CorpusSpec(path=str(three)))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_an_encoding_that_has_a_mark_is_found(tmp_path, encoding, pack):
    text = "text\tlabel\n" + "\n".join(f"Übung {number} mit Text\t{number % 2}" for number in range(20))
    path = tmp_path / "f.tsv"
    path.write_bytes(pack(text.encode(encoding)))
    assert "Übung 0 mit Text" in load_corpus(CorpusSpec(path=str(path), columns=("text", "label"))).texts


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_named(tmp_path, encoding):
    path = tmp_path / "f.tsv"
    path.write_bytes("text\tlabel\na b c\tx\n".encode(encoding))
    with pytest.raises(CorpusError, match=f'set corpus.encoding = "{encoding}"'):
        resolve_corpus(CorpusSpec(path=str(path)))
    assert resolve_corpus(CorpusSpec(path=str(path), encoding=encoding)).spec.columns == ("text", "label")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoding": "utf-88"}, 'corpus.encoding = "utf-88": there is no such encoding; set it to'),
        ({"delimiter": "tabs"}, 'corpus.delimiter = "tabs": set it to "tab", "comma"'),
    ],
)
def test_a_setting_that_is_unknown_names_the_known_ones(tmp_path, settings, message):
    with pytest.raises(CorpusError) as error:
        resolve_corpus(CorpusSpec(path=str(sms(tmp_path)), **settings))
    assert message in str(error.value)

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
    rows = list[str]()
    for number in range(200):
        split, scores = (
            ("train", "dev", "test")[number % 3],
            f"{1.2 + number % 31 / 10:.1f},{number % 4},{number % 3}.5",
        )
        rows.append(f'x{number},{split},{scores},"{sentence()}, so"')
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


def rows_of(*columns: str, number: int = 60) -> list[dict[str, str]]:
    """Rows with a sentence in each column, but for ``label`` and the like, which take turns."""
    values = {"label": "xyz", "class": "ab", "genre": "ab", "Y": "ab", "Tags": "xyz", "score": ["1.5", "2.0", "0.3"]}
    return [
        {column: values[column][row % len(values[column])] if column in values else sentence() for column in columns}
        for row in range(number)
    ]


def as_tsv(folder: Path, name: str, rows: list[dict[str, str]]) -> Path:
    folder.mkdir(exist_ok=True)
    return written(folder / name, "\n".join(map("\t".join, [list(rows[0]), *(row.values() for row in rows)])))


@pytest.mark.parametrize(
    ("given", "columns"),
    [
        (("genre", "sentence1", "sentence2", "score"), ("sentence1", "sentence2", "score")),
        (("Title", "Tags", "Y"), ("Title", "Y")),
        (("question", "passage", "label"), ("question", "passage", "label")),
        (("context", "hypothesis", "reason", "label"), ("context", "hypothesis", "label")),
    ],
)
def test_a_property_of_a_row_is_no_target_and_no_part_of_a_pair_is_dropped(tmp_path, given, columns):
    assert resolve_corpus(CorpusSpec(path=str(as_tsv(tmp_path, "f.tsv", rows_of(*given))))).spec.columns == columns


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("text", "label", "class"), "the target could be any of label, class; .*text,label"),
        (("text", "score", "label"), "the target could be any of score, label; .*text,score"),
        (
            ("title", "body", "abstract", "label"),
            r"3 columns hold texts \(title, body, abstract\); set corpus\.columns",
        ),
    ],
)
def test_two_columns_that_could_be_the_same_are_asked_for(tmp_path, given, message):
    with pytest.raises(CorpusError, match=message):
        resolve_corpus(CorpusSpec(path=str(as_tsv(tmp_path, "f.tsv", rows_of(*given)))))


def test_dates_and_lists_of_numbers_are_no_texts(tmp_path):
    rows = [
        {"when": f"Mon Apr {row % 30:02} 22:19:45 PDT 2009", "near": "1 22 333", **fields}
        for row, fields in enumerate(rows_of("text", "label"))
    ]
    spec = resolve_corpus(CorpusSpec(path=str(as_tsv(tmp_path, "f.tsv", rows)))).spec
    assert spec.columns == ("text", "label")


def test_a_decimal_comma_is_asked_about_and_read_if_it_is_said(tmp_path):
    lines = [f"{sentence()};{sentence()};{row % 5},{row % 7}5" for row in range(60)]
    path = written(tmp_path / "f.csv", "\n".join(["Satz1;Satz2;Wert", *lines]))
    with pytest.raises(
        CorpusError,
        match=r"column 'Wert' holds values such as '0,05': write .*, or set corpus\.decimal = \"comma\"",
    ):
        resolve_corpus(CorpusSpec(path=str(path)))
    resolved = resolve_corpus(CorpusSpec(path=str(path), decimal="comma"))
    corpus = load_corpus(resolved.spec)
    assert (corpus.kind, corpus.score_range) == ("score", (0.0, 5.0))
    scores = {round(5 * float(target), 2) for rows in corpus.splits.values() for target in rows.targets}
    assert scores == {row % 5 + (row % 7 * 10 + 5) / 100 for row in range(60)}


def test_a_file_of_a_split_without_the_target_is_left_out_and_told(tmp_path):
    as_tsv(tmp_path / "glue", "train.tsv", rows_of("sentence", "label"))
    as_tsv(tmp_path / "glue", "dev.tsv", rows_of("sentence", "label"))
    as_tsv(tmp_path / "glue", "test.tsv", rows_of("index", "sentence"))
    resolved = resolve_corpus(CorpusSpec(path=str(tmp_path / "glue")))
    assert resolved.description.endswith("2 splits; without test.tsv, which has no column 'label'")
    assert set(load_corpus(resolved.spec).splits) == {"train", "validation"}


def test_the_layout_of_the_first_file_holds_for_those_of_other_splits(tmp_path):
    (tmp_path / "go").mkdir()
    rows = [f"{sentence()}\t{row % 5}{',7' if row % 4 else ''}\te{row:05}" for row in range(60)]
    written(tmp_path / "go" / "train.tsv", "\n".join(rows))
    written(tmp_path / "go" / "dev.tsv", "\n".join(["short words\t0,1,2\te80888", *rows[:9]]))
    assert len(load_corpus(CorpusSpec(path=str(tmp_path / "go"), target="labels")).split("validation")) == 10


@pytest.mark.parametrize("levels", [(), ("class",), ("split", "class")])
def test_a_folder_of_documents_is_read_with_its_classes_and_splits(tmp_path, levels):
    splits = ("news-train", "news-test") if "split" in levels else ("",)
    classes = ("neg", "pos") if "class" in levels else ("",)
    for split in splits:
        for name in classes:
            folder = tmp_path / "docs" / split / name
            folder.mkdir(parents=True)
            for number in range(30):
                written(folder / f"{number}.txt", f"{split} {name} {number} text\n\nof two paragraphs\n")
    written(tmp_path / "docs" / "README", "what this is")
    corpus = load_corpus(CorpusSpec(path=str(tmp_path / "docs")))
    assert corpus.labels == (classes if "class" in levels else ())
    assert sum(map(len, corpus.splits.values())) == 30 * len(splits) * len(classes)
    for split, rows in corpus.splits.items():
        for texts, target in zip(rows.texts, rows.targets, strict=True):
            given, *_ = str(corpus.texts[texts[0]]).split("text\n\nof two paragraphs")
            assert not levels or corpus.labels[int(target)] in given
            assert "split" not in levels or (split == "test") == ("test" in given)


def test_what_datasets_saved_has_its_parts_and_the_names_of_its_classes(tmp_path):
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    rows = datasets.Dataset.from_dict(
        {"text": [f"text number {row}" for row in range(60)], "label": [0, 1] * 30}, features=features
    )
    datasets.DatasetDict(train=rows, test=rows.select(range(10))).save_to_disk(str(tmp_path / "saved"))
    rows.save_to_disk(str(tmp_path / "one"), num_shards=3)
    (tmp_path / "hub" / "data").mkdir(parents=True)
    for part in range(2):
        rows.shard(2, part).to_parquet(str(tmp_path / "hub" / "data" / f"train-0000{part}-of-00002.parquet"))
    for name, splits in (("saved", {"train", "validation", "test"}), ("one", None), ("hub", {"train", "validation"})):
        corpus = load_corpus(CorpusSpec(path=str(tmp_path / name)))
        assert corpus.labels == ("no", "yes")
        assert splits is None or set(corpus.splits) == splits
        assert len(corpus.texts) == 60


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("train_text.txt", "train_labels.txt"),
            "2 files could be train: .*; write each text and its label in a line of",
        ),
        (("train-00000-of-00003.csv", "train-00001-of-00003.csv"), "2 files could be train"),
        (("dev.csv", "test.csv"), r"expected a file called train, .* \(it holds dev\.csv, test\.csv\); give a file"),
        ((), r"\(it is empty\)"),
    ],
)
def test_a_folder_that_is_not_clear_is_refused(tmp_path, names, message):
    (tmp_path / "folder").mkdir()
    for name in names:
        written(tmp_path / "folder" / name, "text,label\na b c,x\n")
    with pytest.raises(CorpusError, match=message):
        resolve_corpus(CorpusSpec(path=str(tmp_path / "folder")))


def test_nested_tags_are_asked_for_and_chunks_are_none(tmp_path):
    nested = [
        f"{n}\t{w}\t{a}\t{b}"
        for n, w, a, b in ((1, "Uni", "B-ORG", "O"), (2, "Köln", "I-ORG", "B-ORG"), (3, "x", "O", "O"))
    ]
    path = written(tmp_path / "nested.tsv", "\n".join([*nested, ""] * 20))
    with pytest.raises(CorpusError, match=r"columns 3 and 4 both hold tags of the same types; set .* e\.g\. 2,3\."):
        resolve_corpus(CorpusSpec(path=str(path)))
    inner = [line.replace("B-ORG\tO", "B-ORGpart\tO") for line in nested] + ["1\tUni\tB-LOC\tB-ORG"]
    path = written(tmp_path / "types.tsv", "\n".join([*inner, ""] * 20))
    with pytest.raises(CorpusError, match="columns 3 and 4 both hold tags"):
        resolve_corpus(CorpusSpec(path=str(path)))
    typed = ["Ana person-actor", "in O", "Rome location-GPE", ""]
    path = written(tmp_path / "types.txt", "\n".join(typed * 20))
    assert resolve_corpus(CorpusSpec(path=str(path))).spec.target == "tags"
    chunks = ["Ana NNP B-NP B-PER", "sees VB B-VP O", "it PRP O O", ""]
    path = written(tmp_path / "chunks.txt", "\n".join(chunks * 20))
    assert resolve_corpus(CorpusSpec(path=str(path))).spec.target == "tags"


def test_words_and_tags_are_found_in_named_columns_lists_and_behind_a_language(tmp_path):
    lists = [{"words": ["Ana", "sees"], "ner": ["B-PER", "O"]}] * 20
    csv = ["Sentence #,Word,POS,Tag", *["Sentence: 1,Ana,NN,B-PER", ",sees,VB,O"] * 20]
    files = {"lists.json": json.dumps(lists), "ner.csv": "\n".join(csv), "en": "en:Ana\tB-PER\nen:sees\tO\n\n" * 20}
    for name, content in files.items():
        corpus = load_corpus(CorpusSpec(path=str(written(tmp_path / name, content))))
        assert corpus.kind == "tags", name
        assert str(corpus.texts[0]).startswith("Ana sees"), name


def ranked(path, name="relevance", grades=(2, 0, 1), repeats=3):
    rows = [
        f"how does a dog {number // repeats} sleep,the dog {number} sleeps well,{grades[number % 3]}"
        for number in range(30)
    ]
    path.write_text("\n".join([f"query,passage,{name}", *rows]))
    return CorpusSpec(path=str(path))


@pytest.mark.parametrize(
    ("changed", "hint", "kind"),
    [
        ({}, "", "rank"),
        ({"name": "rel"}, "", "rank"),
        ({"name": "label"}, "", "class"),  # may be anything
        ({"repeats": 1}, "", "class"),  # a passage for each query ranks nothing
        ({"grades": (0.5, 0, 1)}, "", "score"),
        ({}, "class", "class"),  # a recipe says what it wants
        ({}, "score", "score"),
    ],
)
def test_passages_with_their_relevance_are_ranked_unless_a_recipe_wants_something_else(tmp_path, changed, hint, kind):
    assert resolve_corpus(ranked(tmp_path / "ranking.csv", **changed), hint).spec.target == kind

"""Options and arguments that the commands share, and the recipe settings that they stand for."""

from pathlib import Path
from typing import Annotated, TypedDict

import typer

from permafrost.data.machine import size_in_bytes
from permafrost.named_runs import IfDone

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]

RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="The name of a recipe that ships, or the path of your own .toml file.")
]

ShownRecipe = Annotated[
    str | None, typer.Argument(metavar="RECIPE", help="Show the values of this recipe instead of the defaults.")
]

SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a setting, e.g. plan.views=mean,cls or finetune.cut=10 or multitask.schedule=joint. Repeatable.",
    ),
]

OnlyOption = Annotated[
    list[str] | None, typer.Option("--only", metavar="VARIANT", help="Train only this variant. Repeatable.")
]

VariantOption = Annotated[
    str, typer.Option(metavar="VARIANT", help="Use the settings of this variant instead of the recipe's own.")
]

RunsOption = Annotated[Path, typer.Option("--runs", metavar="FOLDER", help="Where the run folder is written.")]

NameOption = Annotated[
    str,
    typer.Option(
        "--name",
        metavar="NAME",
        help="Name of the run folder. If it holds this run already, its results are printed and nothing runs. Default: "
        'the recipe\'s name, or "evaluation", and the next free number.',
    ),
]

IfDoneOption = Annotated[
    IfDone,
    typer.Option(
        "--if-done",
        help="If the run of this --name is done: skip it, run it again in its place, or fail.",
    ),
]

MaxBytesOption = Annotated[
    str,
    typer.Option(
        "--max-bytes",
        metavar="SIZE",
        help="Stop with an error if the cache would grow by more than this, e.g. 500MB or 20GB.",
    ),
]

StrictOption = Annotated[
    bool,
    typer.Option(
        "--strict", help="Stop with an error if the corpus has faulty rows; else they are skipped and counted."
    ),
]

StudyName = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="Name of the study; a study of the same name is continued. Default: the recipe's."
    ),
]

TrialsOption = Annotated[
    int | None,
    typer.Option(metavar="N", help="Finished trials in total, earlier ones included. Default: the recipe's."),
]

WorkersOption = Annotated[
    int, typer.Option(metavar="N", help="Processes that train trials in parallel; they share one copy of the latents.")
]

StorageOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Database of the study, e.g. postgresql+psycopg://user@host/name, which any number of hosts may share. "
        "Default: a journal file, for one command at a time.",
    ),
]

ExtractWorkers = Annotated[
    int,
    typer.Option("--workers", metavar="N", help="Processes that share the work, here or, with --ray, on a cluster."),
]

RayOption = Annotated[
    str,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Share the work among actors of a Ray cluster: HOST:PORT, auto for the one of this machine, or local to "
        "start Ray here.",
    ),
]

DashboardOption = Annotated[
    bool,
    typer.Option(
        "--dashboard",
        help="Show the study in the browser while it runs, and afterwards until Ctrl-C. A study that is done is only "
        "shown.",
    ),
]

PortOption = Annotated[
    int, typer.Option(metavar="N", help="Port of the dashboard on this machine; 0 takes a free one.")
]

Sentences = Annotated[
    list[str] | None,
    typer.Argument(metavar="TEXT", help="Two or more sentences. Default: the sentences of the recipe 'similarity'."),
]

SentencesFile = Annotated[
    Path | None, typer.Option("--file", metavar="FILE", help="A csv, tsv, jsonl, parquet or txt file of sentences.")
]

BackboneOption = Annotated[
    list[str] | None, typer.Option("--backbone", metavar="NAME", help="A sentence encoder. Repeatable.")
]

PoolingOption = Annotated[
    str, typer.Option(metavar="NAME", help="Pooling: mean over all tokens, or cls for the first token.")
]

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, e.g. runs/sts-1.")]

Texts = Annotated[
    list[str] | None, typer.Argument(metavar="TEXT", help="Texts. If the run reads pairs, give two texts per pair.")
]

TextsFile = Annotated[
    Path | None, typer.Option("--file", metavar="FILE", help="A csv, tsv, jsonl, parquet or txt file of texts.")
]

TaskOption = Annotated[
    str, typer.Option("--task", metavar="NAME", help="Predict with this task only, if the run has several.")
]

PlaceOption = Annotated[
    str,
    typer.Option(
        "--backbone", metavar="PLACE", help="Where the run's backbone lies now: a folder, a short name or a hub id."
    ),
]

EvaluatedData = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        metavar="FILE|FOLDER|NAME",
        help="Labelled data: a file, a folder with a file per split, a corpus or a hub data set. Repeatable. Default: "
        "the run's own corpus.",
    ),
]

SplitOption = Annotated[
    str,
    typer.Option("--split", metavar="NAME", help="train, validation, test or all. Default: test, if there is one."),
]

LabelMapOption = Annotated[
    list[str] | None,
    typer.Option(
        "--label-map",
        metavar="THEIRS=OURS",
        help="A label of the data and the label of the run that it stands for; empty leaves it out. Repeatable.",
    ),
]

OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Write the predictions to this .csv or .jsonl file.")
]

RawOption = Annotated[
    bool, typer.Option("--raw", help="Write cells of a .csv file as they are, also those that a spreadsheet would run.")
]

RunFolders = Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders, e.g. runs/sts-1.")]

PageOption = Annotated[Path, typer.Option(metavar="FILE", help="Where the page that compares several runs is written.")]

FormatOption = Annotated[
    str,
    typer.Option(
        "--format", metavar="NAME", help="Print the tables of results as markdown or latex instead of drawing a page."
    ),
]


DataOption = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="FILE|FOLDER|NAME",
        help="Your data instead of the recipe's: a file, a folder with a file per split, a corpus or a hub data set.",
    ),
]

LookedData = Annotated[
    str, typer.Argument(metavar="FILE", help="A file, a folder with a file per split, a corpus or a hub data set.")
]

ColumnsOption = Annotated[
    str,
    typer.Option(
        "--columns",
        metavar="A,B,C",
        help="Its columns, texts first, then the target: names, positions from 1, or a regular expression with the "
        "groups text, second, label. Default: found from the file.",
    ),
]

TargetOption = Annotated[
    str,
    typer.Option(
        "--target", metavar="KIND", help="Kind of its target: class, score, labels, tags, answers, rank or none."
    ),
]

ModelOption = Annotated[
    str, typer.Option("--backbone", metavar="NAME", help="The backbone: a short name, a folder or a hub id.")
]

DropLeaksOption = Annotated[
    bool, typer.Option("--drop-leaks", help="Leave out training rows that are in validation or test too.")
]


DeviceOption = Annotated[
    str, typer.Option("--device", metavar="NAME", help="Where to run: auto (the default), cpu, cuda, cuda:1 or mps.")
]


class CorpusArguments(TypedDict):
    """Arguments of the interface's functions that replace the corpus of a recipe."""

    data: str | None
    columns: list[str]
    target: str


def corpus_arguments(data: str, columns: str, target: str) -> CorpusArguments:
    """Return ``--data``, ``--columns`` and ``--target``."""
    return CorpusArguments(data=data or None, columns=column_names(columns), target=target)


def column_names(columns: str) -> list[str]:
    """Return the names of ``--columns``, which are separated by commas; a regular expression is one."""
    return [columns] if "(?P<" in columns else [name.strip() for name in columns.split(",") if name.strip()]


def recipe_overrides(
    set_: list[str] | None,
    max_bytes: str = "",
    strict: bool = False,
    backbone: str = "",
    drop_leaks: bool = False,
    device: str = "",
) -> list[str]:
    """Return options as ``KEY=VALUE`` settings: those of ``--set``, then those with a name of their own.

    Raises:
        SpecError: ``max_bytes`` is no size.
    """
    overrides = [*(set_ or ()), *([f"plan.backbone={backbone}"] if backbone else [])]
    if max_bytes:
        overrides.append(f"extract.max_bytes={size_in_bytes(max_bytes, '--max-bytes')}")
    if strict:
        overrides.append("corpus.strict=true")
    if drop_leaks:
        overrides.append("corpus.drop_leaks=true")
    if device:
        overrides.append(f"device={device}")
    return overrides

"""Options and arguments of the commands, and what they change in a recipe."""

import re
from pathlib import Path
from typing import Annotated

import typer

from permafrost.data.spec import SpecError

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}

UNITS |= {"KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead of tables.")]

RecipeName = Annotated[str, typer.Argument(help="A shipped recipe by name, or the path of your own .toml file.")]

ShownRecipe = Annotated[str | None, typer.Argument(help="Show the values of this recipe.")]

SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, e.g. plan.views=mean,cls. May be repeated."),
]

OnlyOption = Annotated[
    list[str] | None, typer.Option("--only", metavar="VARIANT", help="Train this variant alone. May be repeated.")
]

VariantOption = Annotated[str, typer.Option(help="Take this variant's settings; else the recipe's own.")]

RunsOption = Annotated[Path, typer.Option("--runs", help="Folder that receives the run folder.")]

MaxBytesOption = Annotated[
    str,
    typer.Option("--max-bytes", metavar="SIZE", help="Refuse to add more than this to the cache, e.g. 500MB or 20GB."),
]

StrictOption = Annotated[
    bool, typer.Option("--strict", help="Refuse a corpus with faulty rows, which are else left out and counted.")
]

StudyName = Annotated[str, typer.Option(help="Name of the study; the same name goes on with it.")]

TrialsOption = Annotated[int | None, typer.Option(help="Finished trials it is to hold, those there counted.")]

WorkersOption = Annotated[int, typer.Option(help="Processes that train trials; they share one copy of the latents.")]

StorageOption = Annotated[
    str | None, typer.Option(help="A database, e.g. postgresql+psycopg://user@host/name; else a journal file.")
]

Sentences = Annotated[list[str] | None, typer.Argument(help="Sentences, two or more; else the recipe's.")]

SentencesFile = Annotated[Path | None, typer.Option("--file", help="csv, tsv, jsonl, parquet or txt of sentences.")]

BackboneOption = Annotated[
    list[str] | None, typer.Option("--backbone", metavar="NAME", help="A sentence encoder. May be repeated.")
]

PoolingOption = Annotated[str, typer.Option(help="mean over all tokens, or cls, the first one.")]

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, e.g. runs/sts-1.")]

Texts = Annotated[list[str] | None, typer.Argument(help="Texts; two make a pair where the run reads pairs.")]

TextsFile = Annotated[Path | None, typer.Option("--file", help="csv, tsv, jsonl, parquet or txt with the texts.")]

TaskOption = Annotated[str, typer.Option("--task", metavar="NAME", help="Answer by this task of a run of several.")]

OutOption = Annotated[Path | None, typer.Option("--out", help="Write the answers to this .csv or .jsonl file.")]

RunFolders = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, e.g. runs/sts-1.")]

PageOption = Annotated[Path, typer.Option(help="Where the page that compares several runs goes.")]


def changes(set_: list[str] | None, max_bytes: str = "", strict: bool = False) -> list[str]:
    """What the options say as ``KEY=VALUE`` settings, those with a name of their own last.

    Raises:
        SpecError: ``max_bytes`` is no size.
    """
    found = list(set_ or ())
    if max_bytes:
        found.append(f"extract.max_bytes={size_in_bytes(max_bytes)}")
    if strict:
        found.append("corpus.strict=true")
    return found


def size_in_bytes(text: str) -> int:
    """``500MB``, ``1.5 GiB`` or plain bytes, as a number; units are decimal unless they have an i.

    Raises:
        SpecError: it is no such size.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]I?)?B?", text.strip().upper())
    size = round(float(found[1]) * UNITS[found[2] or ""]) if found else 0
    if size < 1:
        raise SpecError(f"--max-bytes {text!r}: expected a size such as 500MB, 20GB or 1000000.")
    return size

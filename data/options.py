"""Options that several commands share, and what they change in a recipe."""

import re
from pathlib import Path
from typing import Annotated

import typer

from data.spec import SpecError

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
UNITS |= {"KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead of tables.")]
RecipeName = Annotated[str, typer.Argument(help="A shipped recipe by name, or the path of your own .toml file.")]
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

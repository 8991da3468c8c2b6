"""Commands that give vectors to other programs: the latents of a file, what a trained probe makes of texts."""

from pathlib import Path
from typing import Annotated

import typer

from permafrost import exporting
from permafrost.cli import options
from permafrost.cli.console import Console, show_json

latents_app = typer.Typer()

LayersOption = Annotated[
    str, typer.Option("--layers", metavar="LAYERS", help='Layers: "all", a list as 0,6,12, or a range as 1..-1.')
]

ViewOption = Annotated[
    list[str] | None,
    typer.Option(
        "--view",
        metavar="NAME",
        help="Pooling of the tokens: mean (default), last, text_last, cls, ... Repeatable.",
    ),
]

MaxTokensOption = Annotated[
    str, typer.Option("--max-tokens", metavar="N", help="Longer texts are cut. Default: 256, or what the model reads.")
]

TemplateOption = Annotated[
    str, typer.Option("--template", metavar="TEXT", help='Text around each input, with {text} for it; or "chat".')
]

ExportFolder = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where the files are written.")]

ExportFormat = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="NAME",
        help="parquet or arrow: tables with a column of vectors for each view and layer. npy or safetensors: an array "
        "[layer, text, width] for each view, and the rows as parquet.",
    ),
]


def plan_overrides(
    backbone: str, layers: str, view: list[str] | None, max_tokens: str, template: str, set_: list[str] | None
) -> list[str]:
    """Return the options of a capture plan as ``KEY=VALUE`` settings, after those of ``--set``."""
    overrides = options.recipe_overrides(set_, backbone=backbone)
    named = {"layers": layers, "views": ",".join(view or ()), "max_tokens": max_tokens}
    overrides += [f"plan.{key}={value}" for key, value in named.items() if value]
    if template:
        overrides.append(f"plan.template='''{template}'''" if "'" not in template else f"plan.template={template}")
    return overrides


@latents_app.command("latents")
def latents_command(
    data: options.DataOption,
    out: ExportFolder,
    format_: ExportFormat = "parquet",
    columns: options.ColumnsOption = "",
    target: options.TargetOption = "",
    backbone: options.ModelOption = "",
    layers: LayersOption = "",
    view: ViewOption = None,
    max_tokens: MaxTokensOption = "",
    template: TemplateOption = "",
    set_: options.SetOption = None,
    max_bytes: options.MaxBytesOption = "",
    strict: options.StrictOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Write the latents of a file, with its texts, targets and splits, for other programs.

    What is not cached yet is extracted first. Texts without a target, one on each line, will do. The rows are in the
    order of the file. You may stop the command at any time and repeat it: it goes on from there.

    Example: permafrost latents --data reviews.csv --backbone gpt2-medium --layers 6,12 --view last --out latents
    """
    own = options.corpus_arguments(data, columns, target)
    overrides = plan_overrides(backbone, layers, view, max_tokens, template, set_)
    overrides += options.recipe_overrides(None, max_bytes, strict)
    result = exporting.export_latents(own["data"], out, format_, own["columns"], own["target"], overrides, Console())
    if as_json:
        show_json(vars(result) | {"folder": str(result.folder), "files": list(result.files)})
        return
    there = "it was there already: " if result.existed else ""
    print(f"{there}{result.rows:,} rows, {result.bytes / 1e6:,.1f} MB in {len(result.files)} files, to {result.folder}")

"""Commands on latents: extraction into the cache, and vectors for other programs, of a file or by a trained probe."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from permafrost import exporting
from permafrost.cli import options
from permafrost.cli.console import Console, say, show_facts, show_json, show_table
from permafrost.cli.verb import VerbApp
from permafrost.data.corpora.records import CorpusError
from permafrost.data.spec import SpecError
from permafrost.data.text import text_problem

if TYPE_CHECKING:  # this loads numpy
    from permafrost.scaling.request import ExtractionRequest

latents_app = VerbApp()

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

ShardOption = Annotated[
    str,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Run the part of worker I of N, counted from 0; auto takes both from torchrun or SLURM.",
    ),
]

EstimateOption = Annotated[
    bool, typer.Option("--estimate", help="Store nothing: tell texts, tokens, bytes, files and hours.")
]

RateOption = Annotated[
    float,
    typer.Option("--rate", metavar="TOKENS", help="With --estimate: tokens a second of a worker. Default: a pilot."),
]


@latents_app.command("extract")
def extract_command(
    recipe: options.RecipeName,
    data: options.DataOption = "",
    columns: options.ColumnsOption = "",
    target: options.TargetOption = "",
    backbone: options.ModelOption = "",
    device: options.DeviceOption = "",
    set_: options.SetOption = None,
    max_bytes: options.MaxBytesOption = "",
    strict: options.StrictOption = False,
    shard: ShardOption = "",
    workers: options.ExtractWorkers = 0,
    ray: options.RayOption = "",
    estimate: EstimateOption = False,
    rate: RateOption = 0.0,
    as_json: options.JsonOption = False,
) -> None:
    """Run stage one alone: extract latents and cache them.

    Texts whose latents are cached already are skipped. You may stop the command at any time and repeat it. Several
    processes may share the work: --workers on this machine, --shard on any machines that see the cache, --ray on a
    cluster.
    """
    part = _check_means(shard, workers, ray, estimate, rate)
    overrides = options.recipe_overrides(set_, max_bytes, strict, backbone, device=device)
    from permafrost.scaling.request import ExtractionRequest

    request = ExtractionRequest(recipe, overrides, **options.corpus_arguments(data, columns, target))
    if estimate:
        from permafrost.scaling.estimate import estimate as make_estimates

        made = [each.facts for each in make_estimates(request, workers or (part[1] if part else 1), rate, Console())]
        if as_json:
            show_json({"estimates": made})
        for facts in made if not as_json else ():
            show_facts(facts)
        return
    facts = _extracted(request, part, workers, ray)
    (show_json if as_json else show_facts)(facts)
    if ray and facts.get("missing"):
        raise typer.Exit(3)


def _check_means(shard: str, workers: int, ray: str, estimate: bool, rate: float) -> tuple[int, int] | None:
    """Return the shard of ``--shard``, if it is given; raise :class:`SpecError` if options do not go together."""
    if shard and (ray or workers):
        raise SpecError("--shard is the part of one worker: leave out --workers and --ray.")
    if workers < 0:
        raise SpecError(f"--workers must be at least 1, got {workers}.")
    if rate and not estimate:
        raise SpecError("--rate is for --estimate: add it, or leave out --rate.")
    if not shard:
        return None
    from permafrost.extract.distributed.shards import parse_shard

    return parse_shard(shard)


def _extracted(request: "ExtractionRequest", part: tuple[int, int] | None, workers: int, ray: str) -> dict[str, Any]:
    """Extract by the means that are asked for; return what the command prints."""
    if ray:
        from permafrost.scaling.ray_pool import extract_on_ray

        return extract_on_ray(request, ray, workers, Console()).facts
    if workers > 1:
        from permafrost.scaling.processes import extract_in_processes

        return extract_in_processes(request, workers, Console()).facts
    if part:
        from permafrost.extract.distributed.shards import ShardOfPacks

        shard = ShardOfPacks(part)
        return request.run(Console(), shard).facts | {"shard": "/".join(map(str, part)), "missing": shard.missing}
    return request.run(Console()).facts


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
    device: options.DeviceOption = "",
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
    overrides += options.recipe_overrides(None, max_bytes, strict, device=device)
    result = exporting.export_latents(own["data"], out, format_, own["columns"], own["target"], overrides, Console())
    if as_json:
        show_json(vars(result) | {"folder": str(result.folder), "files": list(result.files)})
        return
    there = "it was there already: " if result.existed else ""
    say(f"{there}{result.rows:,} rows, {result.bytes / 1e6:,.1f} MB in {len(result.files)} files, to {result.folder}")


EmbedName = Annotated[
    str, typer.Argument(metavar="RUN|BACKBONE", help="A run folder, or a backbone: a short name, a folder or a hub id.")
]

VectorsFile = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help="The .npy file of the vectors; the texts are kept beside it."),
]

SearchOption = Annotated[
    str, typer.Option("--search", metavar="TEXT", help="Print the ten texts that are nearest to this one.")
]

EmbedView = Annotated[
    str, typer.Option("--view", metavar="NAME", help="Pooling of the last layer of a backbone. Default: mean.")
]


@latents_app.command("embed")
def embed_command(
    name: EmbedName,
    file: options.TextsFile = None,
    out: VectorsFile = None,
    search: SearchOption = "",
    task: options.TaskOption = "",
    backbone: options.PlaceOption = "",
    view: EmbedView = "",
    device: options.DeviceOption = "",
    workers: options.ExtractWorkers = 0,
    ray: options.RayOption = "",
    set_: options.SetOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Write a vector for each text of a file, and find the nearest ones.

    Of a run, the vectors are what its probe makes of a text; if its mixer allows it, the cosine of two is the raw score
    of the pair. Of a backbone, they are its last layer, pooled. A file that is there is searched without embedding its
    texts again: leave --file out. You may stop the command at any time and repeat it. With --workers or --ray,
    the texts are run by several processes first, into the cache, and read from there.

    Example: permafrost embed runs/sts-1 --file sentences.txt --out vectors.npy --search "A dog runs."
    """
    if not file and not out:
        raise CorpusError("give the texts, --file FILE, or vectors that are there, --out FILE.")
    if not out and not search:
        raise CorpusError("give --out FILE for the vectors, --search TEXT, or both.")
    if search and (problem := text_problem(search)):
        raise CorpusError(f"--search: the text {problem}.")
    from permafrost import embedding  # loads numpy and pyarrow
    from permafrost.data.readers.plain_text import read_sentences

    console, texts = Console(), read_sentences(file) if file else None
    if texts == []:
        raise CorpusError(f"{file}: it holds no texts.")
    embedder = embedding.make_embedder(name, task, view, set_ or (), backbone, device)
    console.note(embedder.meaning)
    if (workers or ray) and texts and not (out and out.is_file()):
        from permafrost.scaling.new_texts import extract_new_texts

        extract_new_texts(embedder.planned([*texts, *filter(None, [search])]), workers, ray, console)
    if out:
        embedded = embedding.embed_file(embedder, texts, out, console)
    else:
        embedded = embedding.Embedded(texts=texts or [], vectors=embedder.embed(texts or [], console))
    found = embedding.nearest_texts(embedded, embedder.embed([search], console)[0]) if search else []
    texts_count, width = embedded.vectors.shape
    if as_json:
        nearest = {"nearest": [vars(neighbour) for neighbour in found]} if search else {}
        facts = {"vectors": out and str(out), "texts": texts_count, "width": width, "existed": embedded.existed}
        show_json(facts | {"is_score": embedder.is_score, "meaning": embedder.meaning} | nearest)
        return
    if search:
        show_table(["score", "line", "text"], [[f"{near.score:.4f}", f"{near.number:,}", near.text] for near in found])
    if out:
        there = "it was there already: " if embedded.existed else ""
        say(f"{there}{texts_count:,} vectors of width {width:,}, {out}")

"""Commands on backbones alone: what a model is, which are here, pretraining, and the comparison of sentences."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from permafrost import api, inspection
from permafrost.cli import options
from permafrost.cli.console import Console, say, show_facts, show_json, show_similarity, show_table
from permafrost.cli.verb import VerbApp
from permafrost.data.corpora.records import CorpusError
from permafrost.extract.backbones.registry import known_backbones

backbone_app = VerbApp()

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="A short name, a folder of a model, or an id on the Hugging Face hub.")
]

AdapterOption = Annotated[str, typer.Option("--adapter", metavar="FOLDER", help="A LoRA adapter to merge into it.")]

CacheOption = Annotated[Path, typer.Option("--cache", metavar="FOLDER", help="The folder of the latent stores.")]


@backbone_app.command("backbone")
def backbone_command(
    name: NameArgument,
    adapter: AdapterOption = "",
    cache: CacheOption = Path("cache"),
    as_json: options.JsonOption = False,
) -> None:
    """Examine a model: its blocks, how texts may share a forward pass, largest values by layer, speed."""
    found = inspection.backbone(name, cache=cache, adapter=adapter)
    if as_json:
        show_json({"backbone": asdict(found) | {"exact": found.exact}})
        return
    architecture = found.architecture
    show_facts(
        {
            "backbone": found.name,
            "kind": found.kind,
            "folder": found.folder or "weights are drawn",
            "blocks": f"{architecture.layers - 1} x {' or '.join(architecture.blocks)}",
            "layers": f"0 to {architecture.layers - 1}, of width {architecture.width}",
            "parameters": f"{found.parameters:,}",
            "reads": f"{found.longest:,} tokens",
            "attention": _attention_text(architecture),
            "special tokens": found.special_tokens or "none",
            "chat template": json.dumps(found.chat_template, ensure_ascii=False) if found.chat_template else "none",
            "after the last block": ", ".join(architecture.tail) or "nothing",
            "runs": f"{found.compute_dtype} on {found.device}, road: {found.road}",
            "speed": f"{found.texts_per_second:,.1f} texts/s, {found.tokens_per_second:,.0f} tokens/s",
            "stored": f"{found.stored_dtype}, {found.bytes_per_text:,} bytes a text and view, all layers",
        }
    )
    lines = [[road, f"{value:.1e}" if isinstance(value, float) else value] for road, value in found.roads.items()]
    show_table(["road", "texts together against texts alone, share of the spread"], lines)
    show_table(["layer", "largest value"], [[str(layer), f"{peak:,.1f}"] for layer, peak in enumerate(found.peaks)])


@backbone_app.command("backbones")
def backbones_command(as_json: options.JsonOption = False) -> None:
    """List the short names of models, and the models in the local hub cache."""
    found = known_backbones()
    if as_json:
        show_json({"backbones": [asdict(line) for line in found]})
        return
    show_table(["name", "model", "about", "here"], [list(asdict(line).values()) for line in found])


@backbone_app.command("pretrain")
def pretrain_command(
    recipe: options.RecipeName,
    device: options.DeviceOption = "",
    set_: options.SetOption = None,
    runs: options.RunsOption = Path("runs"),
    as_json: options.JsonOption = False,
) -> None:
    """Pretrain a small language model from scratch.

    The recipe's table [language] describes it. The command writes a model folder, which plan.backbone can name. You may
    stop the command at any time and repeat it: it continues.
    """
    result = api.pretrain(recipe, options.recipe_overrides(set_, device=device), runs, Console())
    if as_json:
        show_json({"run": result.path and str(result.path)} | result.facts)
        return
    show_facts(result.facts)
    say(f"run: {result.path}" if result.path else "it was there already")


@backbone_app.command("similarity")
def similarity_command(
    texts: options.Sentences = None,
    backbone: options.BackboneOption = None,
    pooling: options.PoolingOption = "",
    file: options.SentencesFile = None,
    device: options.DeviceOption = "",
    set_: options.SetOption = None,
    runs: options.RunsOption = Path("runs"),
    max_bytes: options.MaxBytesOption = "",
    as_json: options.JsonOption = False,
) -> None:
    """Compare sentences by their cosines, with one or more encoders.

    Cosines are computed in float32. The report has a heatmap per encoder, and maps in three dimensions.
    """
    if texts and file:
        raise CorpusError("give either sentences or --file FILE to compare.")
    from permafrost.data.readers.plain_text import read_sentences  # loads pyarrow

    sentences = read_sentences(file) if file else texts or None
    overrides = options.recipe_overrides(set_, max_bytes, device=device)
    show_similarity(api.similarity(sentences, backbone or (), pooling, overrides, runs, Console()), as_json)


def _attention_text(architecture: Any) -> str:
    limits = {"window": architecture.window, "chunks": architecture.chunk}
    limited = [f"{name} of {size:,} tokens" for name, size in limits.items() if size]
    return ", ".join(["causal" if architecture.causal else "bidirectional", *architecture.layer_types, *limited])

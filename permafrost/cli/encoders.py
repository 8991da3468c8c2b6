"""Commands on encoders alone, without a probe: pretraining of one, and comparison of sentences by several."""

from pathlib import Path

from permafrost import api
from permafrost.cli import options
from permafrost.cli.console import Console, show_facts, show_json, show_similarity
from permafrost.cli.verb import VerbApp
from permafrost.data.corpora.records import CorpusError

encoder_app = VerbApp()


@encoder_app.command("pretrain")
def pretrain_command(
    recipe: options.RecipeName,
    set_: options.SetOption = None,
    runs: options.RunsOption = Path("runs"),
    as_json: options.JsonOption = False,
) -> None:
    """Pretrain a small language model from scratch.

    The recipe's table [language] describes it. The command writes a model folder, which plan.backbone can name. You may
    stop the command at any time and repeat it: it continues.
    """
    result = api.pretrain(recipe, options.recipe_overrides(set_), runs, Console())
    if as_json:
        show_json({"run": result.path and str(result.path)} | result.facts)
        return
    show_facts(result.facts)
    print(f"run: {result.path}" if result.path else "it was there already")


@encoder_app.command("similarity")
def similarity_command(
    texts: options.Sentences = None,
    backbone: options.BackboneOption = None,
    pooling: options.PoolingOption = "",
    file: options.SentencesFile = None,
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
    from permafrost.data.readers.plain_text import (
        read_sentences,  # loads pyarrow, which no other command needs to begin
    )

    sentences = read_sentences(file) if file else texts or None
    overrides = options.recipe_overrides(set_, max_bytes)
    show_similarity(api.similarity(sentences, backbone or (), pooling, overrides, runs, Console()), as_json)

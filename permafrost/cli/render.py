"""Printing of results: each command's outcome as a table with a few lines below it, or as one JSON object.

Loads neither torch nor pandas, so that ``--help`` and refusals stay fast.
"""

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from permafrost.cli.console import cell, show_grid, show_json, show_table
from permafrost.data.corpora.records import HELD_OUT
from permafrost.data.spec import manual, plain, read_toml
from permafrost.probes.config.load import load_recipe, shipped_recipes
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.results.grid import to_latex, to_markdown
from permafrost.probes.results.outcomes import RunResult, SimilarityResult, StudyResult
from permafrost.probes.results.run_folder import ReportError

FORMATS = {"markdown": to_markdown, "latex": to_latex}
"""Format of printed tables -> its renderer."""

if TYPE_CHECKING:  # these load torch
    from permafrost.data.corpora.corpus import Corpus
    from permafrost.probes.experiments.language_model import PretrainingResult
    from permafrost.probes.inputs.providers import PlanLatents


def show_run(result: RunResult | SimilarityResult, as_json: bool) -> None:
    """Print the result of ``run``: of a training, or of a comparison of sentences."""
    if isinstance(result, SimilarityResult):
        show_similarity(result, as_json)
    else:
        show_training(result, as_json)


def show_training(result: RunResult, as_json: bool) -> None:
    """Print the tables of results of a run that trained, the chosen variant, counts of texts and the run folder."""
    if as_json:
        show_json({"run": str(result.path)} | {key: value for key, value in vars(result).items() if key != "path"})
        return
    show_results(result.path)
    if result.selected:
        held_out = any(row["split"] == HELD_OUT for row in result.metrics)
        print(f"chosen on {HELD_OUT if held_out else 'validation'}: {result.selected}")
    print(
        f"texts: {result.texts:,}, distinct {result.texts_distinct:,}, run {result.texts_run:,}; {result.seconds:.1f} s"
    )
    print(f"run: {result.path}")


def show_results(run: Path) -> None:
    """Print the tables of results of a run folder."""
    from permafrost.probes.reports.report import result_grids  # loads matplotlib and pandas

    for grid in result_grids(run):
        show_grid(grid)


def show_formatted(runs: Sequence[Path], table_format: str) -> None:
    """Print the tables of results of a run, or the comparison of several, as Markdown or LaTeX."""
    from permafrost.probes.reports.compare import comparison, comparison_grid  # loads matplotlib and pandas
    from permafrost.probes.reports.report import result_grids

    grids = result_grids(runs[0]) if len(runs) == 1 else [comparison_grid(comparison(runs))]
    if not grids:
        raise ReportError(f"{runs[0]} has no tables of results to print.")
    print("\n".join(FORMATS[table_format](grid) for grid in grids), end="")


def show_study(result: StudyResult, best: RunResult, as_json: bool) -> None:
    """Print the best trial of a study, then the run that trained it again."""
    if as_json:
        show_json(
            {
                "study": result.study,
                "trials": result.trials,
                "best": {"value": result.value, "params": result.params},
                "recipe": str(result.recipe),
                "run": str(best.path),
            }
        )
        return
    show_results(result.folder)
    print(f"{result.trials:,} trials, {result.refused:,} refused; best {result.value:.4f}, number {result.number}")
    print(f"its recipe: {result.recipe}")
    show_training(best, as_json)


def show_extraction(corpora: Sequence["Corpus"], latents: Sequence["PlanLatents"], as_json: bool) -> None:
    """Print the stores that an extraction filled, its seconds and its counts of texts."""
    facts = {
        "stores": [str(plan.store.path) for plan in latents],
        "seconds": sum(plan.seconds for plan in latents),
        "texts": sum(corpus.text_count for corpus in corpora),
        "texts_distinct": sum(len(corpus.texts) for corpus in corpora),
        "texts_run": sum(plan.texts_run for plan in latents),
        "truncated": sum(plan.truncated for plan in latents),
    }
    if as_json:
        show_json(facts)
    else:
        _show_facts(facts)


def show_pretraining(result: "PretrainingResult", as_json: bool) -> None:
    """Print the facts of a language model, and its run folder if it was pretrained just now."""
    if as_json:
        show_json({"run": result.path and str(result.path)} | result.facts)
        return
    _show_facts(result.facts)
    print(f"run: {result.path}" if result.path else "it was there already")


def show_similarity(result: SimilarityResult, as_json: bool) -> None:
    """Print the cosine of each pair of sentences: a line per pair, a column per backbone."""
    if as_json:
        show_json({"cosines": result.cosines.to_dict("records"), "run": str(result.path)})
        return
    show_results(result.path)
    print(f"texts: {len(result.texts):,}, run {result.texts_run:,}; {result.seconds:.1f} s")
    print(f"run: {result.path}")


def show_report(page: Path, as_json: bool) -> None:
    """Print the path of a report."""
    if as_json:
        show_json({"report": str(page)})
    else:
        print(page)


def show_comparison(runs: Sequence[Path], out: Path, as_json: bool) -> None:
    """Write the page that compares runs to ``out``, and print the comparison."""
    from permafrost.probes.reports.compare import comparison, comparison_grid, write_comparison  # loads pandas

    frame = comparison(runs)
    page = write_comparison(frame, out)
    if as_json:
        show_json({"report": str(page), "runs": json.loads(frame.to_json(orient="records"))})
        return
    show_grid(comparison_grid(frame))
    print(page)


def show_recipes(as_json: bool) -> None:
    """Print the recipes that ship: name, summary, duration."""
    recipes = {name: read_toml(path.read_text("utf-8"), str(path)) for name, path in shipped_recipes().items()}
    if as_json:
        show_json({"recipes": {name: recipe.get("summary", "") for name, recipe in recipes.items()}})
    else:
        lines = [[name, recipe.get("summary", ""), recipe.get("duration", "")] for name, recipe in recipes.items()]
        show_table(["recipe", "what it does", "duration"], lines)


def show_settings(recipe: str | None, overrides: Iterable[str], as_json: bool) -> None:
    """Print every setting: its value by default or in a recipe, its type and its meaning."""
    values = plain(load_recipe(recipe, overrides)[1]) if recipe else plain(Recipe())
    settings = []
    for setting in manual(Recipe):
        value: Any = values
        for key in setting.key.split("."):
            value = value[key]
        settings.append({"key": setting.key, "value": value, "type": setting.type, "meaning": setting.meaning})
    if as_json:
        show_json({"settings": settings})
        return
    for entry in settings:
        print(f"{entry['key']} = {json.dumps(entry['value'], ensure_ascii=False)}    ({entry['type']})")
        print(textwrap.indent(textwrap.fill(entry["meaning"], 96), "    "))


def _show_facts(facts: Mapping[str, Any]) -> None:
    show_table(["", ""], [[key.replace("_", " "), cell(value)] for key, value in facts.items()])

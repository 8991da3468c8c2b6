"""What a command did, as its user sees it: a table and a few lines, or one JSON object.

Importing this is cheap, so that asking for help is; what needs torch is imported by whoever shows it.
"""

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.corpus import HELD_OUT, Corpus
from data.screen import cell, show_json, show_table
from data.spec import manual, plain

if TYPE_CHECKING:
    from probes.ablation import Ablated
    from probes.asked import Asked
    from probes.inputs import Stored
    from probes.language_run import LanguageRun
    from probes.run_recipe import Done
    from probes.session import Studied
    from probes.similarity import Compared


def show_run(done: "Done | Compared", as_json: bool) -> None:
    """A run: it trained, or compared sentences."""
    from probes.similarity import Compared

    if isinstance(done, Compared):
        show_compared(done, as_json)
    else:
        show_done(done, as_json)


def show_done(done: "Done", as_json: bool) -> None:
    """A run that trained."""
    if as_json:
        left_out = ("path",) if done.variants else ("path", "variants")
        show_json({"run": str(done.path)} | {k: v for k, v in vars(done).items() if k not in left_out})
        return
    from probes import layers, results, together_rows

    if done.variants:
        heads, lines = together_rows.headline(done.metrics, done.variants)
    elif done.selected:
        heads, lines = results.headline(done.metrics, done.parameters, done.backbone_parameters)
    else:
        heads, lines = layers.headline(done.metrics)
    show_table(heads, [[cell(value) for value in line] for line in lines])
    if done.selected:
        held_out = any(row["split"] == HELD_OUT for row in done.metrics)
        print(f"chosen on {HELD_OUT if held_out else 'validation'}: {done.selected}")
    print(f"texts: {done.texts:,}, distinct {done.texts_distinct:,}, run {done.texts_run:,}; {done.seconds:.1f} s")
    print(f"run: {done.path}")


def show_ablated(done: "Ablated", as_json: bool) -> None:
    """An ablation."""
    if as_json:
        show_json({"run": str(done.path)} | {k: v for k, v in vars(done).items() if k != "path"})
        return
    from probes.ablation import headline

    show_table(*headline(done.metrics))
    print(f"texts: {done.texts:,}, distinct {done.texts_distinct:,}, run {done.texts_run:,}; {done.seconds:.1f} s")
    print(f"run: {done.path}")


def show_studied(found: "Studied", best: "Done", as_json: bool) -> None:
    """A study, and the run of its best trial."""
    if as_json:
        show_json(
            {
                "study": found.study,
                "trials": found.trials,
                "best": {"value": found.value, "params": found.params},
                "recipe": str(found.recipe),
                "run": str(best.path),
            }
        )
        return
    show_table(["best trial", ""], [[key, json.dumps(value)] for key, value in found.params.items()])
    print(f"{found.trials:,} trials, {found.refused:,} refused; best {found.value:.4f}, number {found.number}")
    print(f"its recipe: {found.recipe}")
    show_done(best, as_json)


def show_extracted(corpora: Sequence[Corpus], stored: Sequence["Stored"], as_json: bool) -> None:
    """Stage one."""
    shown = {
        "stores": [str(one.store.path) for one in stored],
        "seconds": sum(one.seconds for one in stored),
        "texts": sum(corpus.sentences for corpus in corpora),
        "texts_distinct": sum(len(corpus.texts) for corpus in corpora),
        "texts_run": sum(one.texts_run for one in stored),
        "truncated": sum(one.truncated for one in stored),
    }
    if as_json:
        show_json(shown)
    else:
        show_table(["", ""], [[key.replace("_", " "), cell(value)] for key, value in shown.items()])


def show_pretrained(done: "LanguageRun", as_json: bool) -> None:
    """A language model from scratch; the run folder is there where it was pretrained just now."""
    if as_json:
        show_json({"run": done.path and str(done.path)} | done.facts)
        return
    show_table(["", ""], [[key.replace("_", " "), cell(value)] for key, value in done.facts.items()])
    print(f"run: {done.path}" if done.path else "it was there already")


def show_compared(done: "Compared", as_json: bool) -> None:
    """Cosines of sentences: a line a pair, a column a backbone."""
    if as_json:
        show_json({"cosines": done.cosines.to_dict("records"), "run": str(done.path)})
        return
    wide = done.cosines.pivot(index=["first", "second"], columns="backbone", values="cosine")[list(done.backbones)]
    names = [f"{first}-{second}" for first, second in wide.index]
    lines = [[name, *(f"{value:.6f}" for value in row)] for name, row in zip(names, wide.to_numpy(), strict=True)]
    show_table(["sentences", *done.backbones], lines)
    print(f"texts: {len(done.texts):,}, run {done.texts_run:,}; {done.seconds:.1f} s")
    print(f"run: {done.path}")


def show_report(page: Path, as_json: bool) -> None:
    """Where a report was drawn."""
    if as_json:
        show_json({"report": str(page)})
    else:
        print(page)


def show_comparison(runs: Sequence[Path], out: Path, as_json: bool) -> None:
    """Compare runs, on one page and on the screen."""
    from probes.compare import compare, comparison, on_screen

    found = comparison(runs)
    page = compare(runs, out)
    if as_json:
        show_json({"report": str(page), "runs": json.loads(found.to_json(orient="records"))})
        return
    show_table(*on_screen(found))
    print(page)


def show_predictions(
    asked: Sequence["Asked"], answers: Sequence[Mapping[str, Any]], out: Path | None, as_json: bool
) -> None:
    """What a run answered: a line an item, or an entity; where it was written, if it was."""
    from probes.answer_lines import answers_in_json, shown

    if as_json:
        show_json({"predictions": answers_in_json(asked, answers)})
    elif out:
        print(f"answers: {len(answers):,}, to {out}")
    else:
        lines = shown(asked, answers)
        show_table(list(lines[0]), [[cell(value) for value in line.values()] for line in lines])


def show_recipes(as_json: bool) -> None:
    """What ships."""
    from probes.recipe import load_recipe, shipped

    found = {name: load_recipe(name)[1] for name in shipped()}
    if as_json:
        show_json({"recipes": {name: one.summary for name, one in found.items()}})
    else:
        show_table(["recipe", "what it does", "takes"], [[name, one.summary, one.takes] for name, one in found.items()])


def show_settings(recipe: str | None, overrides: Iterable[str], as_json: bool) -> None:
    """Every setting: its value, by default or in a recipe, its type and what it means."""
    from probes.recipe import Recipe, load_recipe

    values = plain(load_recipe(recipe, overrides)[1]) if recipe else plain(Recipe())
    lines = []
    for setting in manual(Recipe):
        value: Any = values
        for key in setting.key.split("."):
            value = value[key]
        lines.append({"key": setting.key, "value": value, "type": setting.type, "meaning": setting.meaning})
    if as_json:
        show_json({"settings": lines})
        return
    for one in lines:
        print(f"{one['key']} = {json.dumps(one['value'], ensure_ascii=False)}    ({one['type']})")
        print(textwrap.indent(textwrap.fill(one["meaning"], 96), "    "))

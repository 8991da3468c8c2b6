"""A user's own data in place of the corpus of a recipe: files, named corpora, hub data sets, and tables in memory.

What a corpus spec leaves open about a file is found here, before anything runs, and recorded with the recipe.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from permafrost.data.atomic import write_atomically
from permafrost.data.corpora.records import CorpusError, Kind
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.digests import digest_of
from permafrost.data.errors import first_line
from permafrost.data.files.column_names import split_of
from permafrost.data.machine import check_device_here
from permafrost.data.progress import Progress
from permafrost.data.remote.mirror import local_cache
from permafrost.data.spec import SpecError, Tree, nearest, parse, plain
from permafrost.data.text import describe_value
from permafrost.probes.config.recipe import Recipe

if TYPE_CHECKING:
    import datasets
    import pandas as pd

Data = Union[str, Path, "pd.DataFrame", "datasets.Dataset", "datasets.DatasetDict", Sequence[Any], None]
"""A file, a folder, a pattern of files, the name of a corpus, the id of a hub data set; or rows: a pandas or
``datasets`` table, a list of dicts, of tuples or of texts. None: the corpus of the recipe."""

RECIPES: dict[Kind, str] = {
    "score": "pairs",
    "class": "classify",
    "labels": "multilabel",
    "tags": "ner",
    "answers": "qa",
    "rank": "rank",
}
"""Kind of target -> the recipe that is made for it."""

HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")
"""Id of a data set on the hub."""

KEPT = ("rule", "fractions", "split_seed")
"""Settings of a recipe's corpus that are kept if other data take its place; the others belong to the corpus."""


@dataclass(frozen=True)
class DataArguments:
    """The arguments that replace the corpus of a recipe."""

    data: Data = None
    columns: Sequence[str] = ()
    target: Kind = ""
    cache: str = "cache"
    """Folder under which rows from memory are written, so that a run can be repeated."""

    def corpus_table(self, recipe: Recipe) -> Tree:
        """Return the ``[corpus]`` table that takes the place of the recipe's.

        Raises:
            SpecError: the recipe has several tasks, each with a corpus of its own.
            CorpusError: there is no such file, folder or corpus.
        """
        given: Tree = {"columns": list(self.columns)} if self.columns else {}
        given |= {"target": self.target} if self.target else {}
        if self.data is None:
            return {**plain(recipe.corpus), **given}
        if recipe.tasks:
            raise SpecError(
                f"--data gives one corpus, and this recipe has {len(recipe.tasks)} tasks: set that of a task by --set "
                f"tasks.{next(iter(recipe.tasks))}.corpus.path=FILE."
            )
        kept = {key: value for key, value in plain(recipe.corpus).items() if key in KEPT}
        if self.target or len(self.columns) > 1:
            kept.pop("rule", None)  # the user names a target
        return kept | source_of(self.data, self.cache) | given


def load_with_data(
    load: Callable[..., tuple[str, Recipe]],
    name: str,
    overrides: Iterable[str],
    arguments: DataArguments,
    progress: Progress | None = None,
) -> tuple[str, Recipe]:
    """Return the name of a recipe and the recipe, with the user's data and what was found in its files.

    Args:
        load: :func:`permafrost.probes.config.load.load_recipe` or another of that module.
        name, overrides: as of ``load``.
        arguments: the data; by default the recipe's own.
        progress: is told if the targets that were found are of another kind than the recipe is made for.
    """
    hints = list[Kind]()

    def corpus_table(recipe: Recipe) -> Tree:
        hints.append(kind_of_corpus(recipe.corpus))
        return arguments.corpus_table(recipe)

    given = arguments.data is not None or arguments.columns or arguments.target
    recipe_name, recipe = load(name, overrides, corpus_table if given else None)
    check_device_here(recipe.device)
    hint = hints[0] if hints else kind_of_corpus(recipe.corpus)
    recipe = with_found_corpora(recipe, hint)
    kind = kind_of_corpus(recipe.corpus)
    if progress and hint in RECIPES and kind in RECIPES and kind != hint and not arguments.target:
        progress.note(
            f"the recipe {recipe_name} is made for the kind of target '{hint}', and '{kind}' was found: use the recipe "
            f"{RECIPES[kind]}, or set corpus.target (--target) to {hint} if that is what they are."
        )
    return recipe_name, recipe


def source_of(data: Data, cache: str) -> dict[str, str]:
    """Return the setting, ``path`` or ``name``, that stands for data.

    Raises:
        CorpusError: there is no such file, folder or corpus; or rows are of no known form.
    """
    if not isinstance(data, str | Path):
        return {"path": str(save_rows(data, local_cache(cache) / "data"))}
    from permafrost.data.readers.registry import CORPORA
    from permafrost.data.readers.sources import is_glob

    if Path(data).expanduser().exists() or is_glob(Path(data)):
        return {"path": str(data)}
    if str(data) in CORPORA or (HUB_ID.fullmatch(str(data)) and not Path(data).suffix):
        return {"name": str(data)}
    raise CorpusError(
        f"--data {data}: there is no such file or folder, and no corpus of this name. {nearest(str(data), CORPORA)}"
    )


def save_rows(data: Any, folder: Path) -> Path:
    """Write rows from memory as parquet under a name that is their digest; return the path.

    Raises:
        CorpusError: the rows are of no known form.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        table = _as_table(data)
    except (pyarrow.ArrowException, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise CorpusError(
            f"data = {type(data).__name__}: it cannot be read as a table ({_odd_value(data) or first_line(error)}); "
            "give each column a name of its own and values of one type."
        ) from error
    sink = pyarrow.BufferOutputStream()
    metadata = {key: value for key, value in (table.schema.metadata or {}).items() if key == b"huggingface"}
    parquet.write_table(table.replace_schema_metadata(metadata), sink)  # without what names versions of libraries
    content = sink.getvalue().to_pybytes()
    path = folder / f"{digest_of(content)[:16]}.parquet"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    return path


def _as_table(data: Any) -> Any:
    import pyarrow

    if isinstance(data, Mapping) and not any(map(split_of, data)):
        return _from_columns({str(name): list(column) for name, column in data.items()})
    if isinstance(data, Mapping):  # a DatasetDict, or a table for each split
        if unknown := [name for name in data if not split_of(name)]:
            raise CorpusError(
                f"data['{unknown[0]}']: no word for a split; leave it out, or call it train, validation or test."
            )
        tables = [_in_split(_as_table(rows), name) for name, rows in data.items()]
        return pyarrow.concat_tables(tables, promote_options="default")
    if hasattr(data, "with_format") and not hasattr(data, "__len__"):  # datasets.IterableDataset
        import datasets

        data = datasets.Dataset.from_list(list(data), features=data.features)
    if hasattr(data, "with_format") and hasattr(data, "column_names"):  # datasets.Dataset, also after a selection
        return data.with_format("arrow")[:]
    if hasattr(data, "to_dict") and hasattr(data, "columns"):
        named = [name for name in data.index.names if name is not None]
        return pyarrow.Table.from_pandas(data.reset_index() if named else data, preserve_index=False)
    if hasattr(data, "tolist"):  # a numpy array, or a column of pandas
        data = data.tolist()
    rows = list(data) if isinstance(data, Iterable) else []
    if rows and all(isinstance(row, str) for row in rows):
        return pyarrow.table({"text": rows})
    if rows and all(isinstance(row, Mapping) for row in rows):
        names = dict.fromkeys(name for row in rows for name in row)
        return _from_columns({str(name): [row.get(name) for row in rows] for name in names})
    if rows and all(isinstance(row, list | tuple) for row in rows):
        width = max(map(len, rows))
        columns = ([row[index] if index < len(row) else None for row in rows] for index in range(width))
        return _from_columns({str(number): column for number, column in enumerate(columns, 1)})
    odd = next((number for number, row in enumerate(rows, 1) if type(row) is not type(rows[0])), 1)
    found = f" (row {odd:,} is {describe_value(rows[odd - 1])})" if rows else ""
    raise CorpusError(
        f"data = {type(data).__name__}{found}: give a file, a folder, a name, a pandas or datasets table, or a list of "
        "texts, tuples or dicts with at least one row."
    )


def _from_columns(columns: Mapping[str, Sequence[Any]]) -> Any:
    """Return a table; missing values may be None or NaN, as in pandas."""
    import pyarrow

    return pyarrow.table({name: pyarrow.array(list(column), from_pandas=True) for name, column in columns.items()})


def _odd_value(data: Any) -> str:
    """Return the place of the first value of another type than those above it; empty if there is none."""
    if not isinstance(data, list) or not all(isinstance(row, Mapping | list | tuple) for row in data):
        return ""
    types = dict[str, type]()
    for number, row in enumerate(data, 1):
        named = row.items() if isinstance(row, Mapping) else enumerate(row, 1)
        for name, value in named:
            before = types.setdefault(str(name), type(value)) if value is not None else type(value)
            if before is not type(value):
                return f"row {number:,}, column {name}: {describe_value(value)}, after {before.__name__}"
    return ""


def _in_split(table: Any, split: str) -> Any:
    """Return a table whose column of splits holds one name."""
    others = table.drop_columns("split") if "split" in table.column_names else table
    return others.append_column("split", [[split] * len(others)])


def kind_of_corpus(spec: CorpusSpec) -> Kind:
    """Return the kind of target that a corpus spec names, or that of a named corpus; empty if it is unknown."""
    from permafrost.data.readers.registry import CORPORA

    return "class" if spec.rule else spec.target or (CORPORA[spec.name].target if spec.name in CORPORA else "")


def with_found_corpora(recipe: Recipe, hint: Kind) -> Recipe:
    """Return a recipe whose corpora from files name everything that was found in the files.

    Args:
        recipe: a recipe.
        hint: the kind of target that the recipe is for.
    """
    tree, found = plain(recipe), dict[str, CorpusSpec]()
    places = {"": (tree, recipe.corpus)}
    for task, task_recipe in recipe.task_recipes().items() if recipe.tasks else ():
        if "corpus" in tree["tasks"][task]:
            places[task] = (tree["tasks"][task], task_recipe.corpus)
    for table, spec in places.values():
        if not spec.path:
            continue
        from permafrost.data.readers.resolve import resolve_corpus  # loads numpy

        key = str(spec)
        if key not in found:
            found[key] = resolve_corpus(spec, hint).spec
        shared = found.get(str(recipe.corpus), recipe.corpus)  # what a task has in common with the recipe
        defaults = plain(CorpusSpec() if table is tree else shared)
        table["corpus"] = {name: value for name, value in plain(found[key]).items() if value != defaults[name]}
    return parse(Recipe, tree, "recipe") if found else recipe

"""Mutants of a module: every change that an operator of cosmic-ray makes to it.

Left out is what says nothing about tests: changes of type annotations, and those that are no Python (:func:`compiles`).
"""

import difflib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names


@dataclass(frozen=True, order=True)
class Mutant:
    """One change of one module."""

    module: str
    line: int
    operator: str
    occurrence: int
    """Index of the change among all that the operator can make to the module."""


def mutants_of(module: str, root: Path) -> list[Mutant]:
    """Return all mutants of a module, a path below ``root``, in the order of its lines; some may be no Python."""
    source = (root / module).read_text("utf-8")
    tree = get_ast(source)
    annotated = set(map(id, _annotations(tree)))
    found = []
    for name in operator_names():
        if get_operator(name).arguments():  # operators that must be told of the code they change
            continue
        places = [
            (start[0], id(node) in annotated)
            for node in ast_nodes(tree)
            for start, _ in get_operator(name)().mutation_positions(node)
        ]
        found += [Mutant(module, line, name, index) for index, (line, skipped) in enumerate(places) if not skipped]
    return sorted(found)


def mutated(source: str, mutant: Mutant) -> str:
    """Return the source of a module with the change made."""
    changed = mutate_code(source, get_operator(mutant.operator)(), mutant.occurrence)
    assert changed is not None, mutant
    return str(changed)


def changed_lines(source: str, mutant: Mutant) -> tuple[str, str]:
    """Return the lines that a mutant changes, as they were and as they become."""
    lines = list(difflib.ndiff(source.splitlines(), mutated(source, mutant).splitlines()))
    before, after = ([line[2:] for line in lines if line.startswith(mark)] for mark in ("- ", "+ "))
    return " ".join(" ".join(before).split()), " ".join(" ".join(after).split())


def compiles(source: str) -> bool:
    """Return whether a source is Python."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            compile(source, "mutant", "exec")
        except SyntaxError:
            return False
    return True


def _annotations(tree: Any) -> Iterator[Any]:
    """Yield all nodes of type annotations."""
    for node in ast_nodes(tree):
        if node.type in ("param", "funcdef") and node.annotation:
            yield from ast_nodes(node.annotation)
        elif node.type == "annassign":
            yield from ast_nodes(node.children[1])

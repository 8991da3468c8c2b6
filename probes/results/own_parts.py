"""What a run records of the parts from outside that its recipe names: their packages, and digests of their code."""

import json
from collections.abc import Iterable

from permafrost.data.code.parts import code_digest
from permafrost.data.plugin_registry import find, is_known, origin_of
from permafrost.data.plugins import KINDS, Plugin, Reader


def code_of(kind: type[Plugin], name: str) -> str:
    """Return the package and version that a part is of, and a digest of its code: what a run that uses it records.

    Of a reader it is the package alone, as runs record the digest of their data.
    """
    code = "" if kind is Reader else f", code {code_digest(find(kind, name).called)}"
    return f"{origin_of(kind, name)}{code}"


def origins_of(settings: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the parts from outside that settings name, e.g. ``head gated``, and what :func:`code_of` says of each.

    Args:
        settings: dotted keys and values as JSON, as :func:`permafrost.data.spec.flatten_settings` gives them.
    """
    found = {}
    for key, text in settings:
        for kind in KINDS.values():
            leaves = [name.rpartition(".")[2] for name in kind.keys]
            values = json.loads(text) if key.rpartition(".")[2] in leaves else []
            for name in values if isinstance(values, list) else [values]:
                if isinstance(name, str) and name not in kind.built_in and is_known(kind, name):
                    found[f"{kind.kind} {name}"] = code_of(kind, name)
    return dict(sorted(found.items()))

"""Objects by the name of their class, with options from a recipe; errors name the setting."""

import inspect
from collections.abc import Callable, Mapping

from permafrost.data.spec import SpecError, nearest


def from_name(
    setting: str,
    name: str,
    known: Mapping[str, Callable[..., object]],
    options: Mapping[str, object],
    offered: Mapping[str, object],
    builders: Mapping[str, Callable[[object], object]],
) -> object:
    """An instance of ``known[name]``.

    Args:
        setting: the key of the name in the recipe; its options are under ``<setting>_options``.
        offered: arguments that are given where the class takes them and the options do not say.
        builders: arguments that a recipe cannot hold, made from what it says instead, or from None.

    Raises:
        SpecError: no such name, no such option, an argument that is lacking or that the class refuses.
    """
    place = f"{setting} = '{name}'"
    if name not in known:
        raise SpecError(f"{place}: {nearest(name, known)}")
    asked = {
        key: one
        for key, one in inspect.signature(known[name]).parameters.items()
        if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    }
    for key in options:
        if key not in asked:
            raise SpecError(f"{setting}_options: {name} has no '{key}'. {nearest(key, asked)}")
    arguments = {key: value for key, value in (dict(offered) | dict(options)).items() if key in asked}
    arguments |= {key: build(arguments.get(key)) for key, build in builders.items() if key in asked}
    lacking = [key for key, one in asked.items() if one.default is one.empty and key not in arguments]
    if lacking:
        raise SpecError(f"{place} needs '{lacking[0]}': set it in {setting}_options.")
    try:
        return known[name](**arguments)
    except (TypeError, ValueError, AssertionError, ImportError) as error:
        raise SpecError(f"{place} cannot be made: {str(error).splitlines()[0]}") from error

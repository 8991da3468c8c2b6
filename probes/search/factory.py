"""Construction of an object by the name of its class, with options from a recipe; errors name the setting."""

import inspect
from collections.abc import Callable, Mapping

from permafrost.data.errors import first_line
from permafrost.data.spec import SpecError, nearest


def from_name(
    setting: str,
    name: str,
    classes: Mapping[str, Callable[..., object]],
    options: Mapping[str, object],
    defaults: Mapping[str, object],
    builders: Mapping[str, Callable[[object], object]],
) -> object:
    """Return an instance of ``classes[name]``.

    Args:
        setting: recipe key that holds ``name``; the options are at ``<setting>_options``.
        name: of the class.
        classes: name -> class.
        options: arguments from the recipe.
        defaults: arguments to pass if the class has such parameters and ``options`` does not set them.
        builders: parameter -> function that makes an argument which no recipe can hold, from the option or None.

    Raises:
        SpecError: there is no such class or option, an argument is missing, or the class refuses one.
    """
    source = f"{setting} = '{name}'"
    if name not in classes:
        raise SpecError(f"{source}: {nearest(name, classes)}")
    parameters = {
        key: parameter
        for key, parameter in inspect.signature(classes[name]).parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
    for key in options:
        if key not in parameters:
            raise SpecError(f"{setting}_options: {name} has no '{key}'. {nearest(key, parameters)}")
    arguments = {key: value for key, value in (dict(defaults) | dict(options)).items() if key in parameters}
    arguments |= {key: build(arguments.get(key)) for key, build in builders.items() if key in parameters}
    required = [key for key, parameter in parameters.items() if parameter.default is parameter.empty]
    missing = [key for key in required if key not in arguments]
    if missing:
        raise SpecError(f"{source} needs '{missing[0]}': set it in {setting}_options.")
    try:
        return classes[name](**arguments)
    except (TypeError, ValueError, AssertionError, ImportError) as error:
        raise SpecError(f"{source} cannot be made: {first_line(error)}") from error

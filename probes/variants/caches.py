"""In-memory caches of a workspace: probe inputs, limited by their size, and pretrained encoders, limited in number."""

from collections import OrderedDict
from collections.abc import Callable
from weakref import WeakSet

from permafrost.probes.inputs.latents import PooledInputs, ProbeInputs
from permafrost.probes.training.encoder_pretraining import PretrainedEncoder

KEPT_BYTES = 4 << 30
"""Maximum size of the inputs that are kept for later variants."""

KEPT_ENCODERS = 32
"""Maximum number of pretrained encoders that are kept for later variants."""

GetInputs = Callable[[str, Callable[[], ProbeInputs]], ProbeInputs]
"""(key, function that makes the inputs if they are not cached) -> inputs."""


class InputCache:
    """The most recently used probe inputs, up to :data:`KEPT_BYTES`; the last one is kept whatever its size."""

    def __init__(self) -> None:
        self._inputs: OrderedDict[str, ProbeInputs] = OrderedDict()
        self._made: WeakSet[ProbeInputs] = WeakSet()

    def make_room(self, size: int, most: int) -> int:
        """Drop inputs until others of ``size`` bytes may join them; return what ``most`` bytes leave for those.

        Inputs that are in use stay in memory, and count.
        """
        while self._inputs and self._held_bytes() + size > most:
            self._inputs.popitem(last=False)
        return most - self._held_bytes()

    def _held_bytes(self) -> int:
        return sum(map(_kept_bytes, self._made))

    def __call__(self, key: str, make: Callable[[], ProbeInputs]) -> ProbeInputs:
        """Return the inputs of a key; call ``make`` if they are not cached."""
        if key not in self._inputs:
            self._inputs[key] = make()
            self._made.add(self._inputs[key])
        self._inputs.move_to_end(key)
        while len(self._inputs) > 1 and sum(map(_kept_bytes, self._inputs.values())) > KEPT_BYTES:
            self._inputs.popitem(last=False)
        return self._inputs[key]


def _kept_bytes(inputs: ProbeInputs) -> int:
    return inputs.values.nbytes if isinstance(inputs, PooledInputs) else 0  # others are read in batches


class EncoderCache:
    """The most recently pretrained encoders, at most :data:`KEPT_ENCODERS`: a study pretrains a new one per trial."""

    def __init__(self) -> None:
        self._encoders: dict[str, PretrainedEncoder] = {}

    def __call__(self, key: str, make: Callable[[], PretrainedEncoder]) -> PretrainedEncoder:
        """Return the encoder of a key; call ``make`` if it is not cached."""
        if key not in self._encoders:
            while len(self._encoders) >= KEPT_ENCODERS:
                self._encoders.pop(next(iter(self._encoders)))
            self._encoders[key] = make()
        return self._encoders[key]

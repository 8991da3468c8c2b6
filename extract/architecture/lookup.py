"""Look-up of the architecture of a configuration: remembered, or found by running a small model of it.

torch is imported only if a model is run.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from permafrost.data.digests import digest_of, digest_of_parts
from permafrost.data.machine import package_version
from permafrost.data.memo import Memo
from permafrost.data.spec import parse
from permafrost.extract.architecture.architecture import Architecture
from permafrost.extract.architecture.configuration import BackboneError, canonical_json
from permafrost.extract.architecture.small_config import MOST_BLOCKS, depth_of

FOUND_BY = ("architecture.py", "discover.py", "small_config.py", "small_model.py")
"""Files of the code that finds an architecture; what other code found is found again."""


def architecture_of(config: Mapping[str, Any], memo: Memo | None = None) -> Architecture:
    """Return the architecture of a model configuration.

    Args:
        memo: where it is remembered; None remembers it in this process only.

    Raises:
        BackboneError: it is no configuration of a model that can be read, with the reason.
    """
    if (blocks := depth_of(config)) > MOST_BLOCKS:
        raise BackboneError(f"its config.json says {blocks:,} blocks, and at most {MOST_BLOCKS:,} are read")
    canonical = canonical_json(config)

    def find() -> str:
        from permafrost.extract.architecture.small_model import find_architecture

        return find_architecture(canonical)

    versions = f"torch {package_version('torch')}, transformers {package_version('transformers')}"
    code = digest_of_parts([Path(__file__).with_name(name).read_bytes() for name in FOUND_BY])
    key = f"architecture {digest_of(canonical.encode())} {code} {versions}"
    return parse(Architecture, json.loads(memo.get(key, find) if memo else find()), "a remembered architecture")

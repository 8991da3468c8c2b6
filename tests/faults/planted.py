"""Bugs planted in the code, which the self-check must stop; right starts, which it must not; and stale hits."""

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from permafrost.data.errors import MachineError
from permafrost.data.plan.plan import ExtractSpec
from permafrost.data.text import TextError
from permafrost.extract.extraction import extract
from tests.extract.backbones import test_identity as identities
from tests.extract.proofs import test_clean_starts as starts
from tests.extract.proofs import test_self_check as planted
from tests.faults.campaign import Draws, Fault, Outcome
from tests.faults.process import in_process
from tests.faults.workspace import Workspace, told
from tests.support.models.backbones import tiny_folder

BUGS = [
    (bug, family, dtype) for bug, (families, _) in planted.PLANTED.items() for family in families
    for dtype in ("float32", "bfloat16")
]  # fmt: skip

CHANGES = [("folder", row) for row in identities.CHANGES] + [("plan", row) for row in identities.PLANS]


def planted_bug(workspace: Workspace, rng: Draws, folder: Path) -> Outcome:
    """Extract with a bug planted; the self-check stops it before anything is stored."""
    bug, family, dtype = rng.deal(BUGS)
    seed = rng.randrange(1000)
    ended = in_process(partial(_with_bug, bug, family, dtype, seed, folder))
    held = bool(ended.result and ended.result["stopped"])
    wrong = 0 if held or ended.result is None else ended.result["stored"]
    return Outcome(held, 0, wrong, f"{bug.__name__}, {family}, {dtype}, texts {seed} {'' if held else told(ended)}")


def _with_bug(bug: planted.Plant, family: str, dtype: str, seed: int, folder: Path) -> dict[str, object]:
    model = tiny_folder(family, folder / "model", 3)
    plan = planted.plan_of(model, dtype, **planted.PLANTED[bug][1])
    stopped = False
    with pytest.MonkeyPatch.context() as patch:
        bug(patch, folder)
        try:
            extract(
                plan, planted.made_texts(seed), ExtractSpec(cache=str(folder / "cache"), device="cpu", batch_tokens=200)
            )
        except MachineError as error:
            stopped = "cannot be trusted" in str(error)
    stored = len(list((folder / "cache").rglob("*.h5")))
    return {"stopped": stopped and not stored, "stored": stored}


def clean_start(workspace: Workspace, rng: Draws, folder: Path) -> Outcome:
    """Extract random texts with a random plan; no check stops it."""
    family, dtype, seed = rng.choice(starts.RANDOM), rng.choice(["float32", "bfloat16"]), rng.randrange(10**6)
    ended = in_process(partial(_clean, family, dtype, seed, folder))
    return Outcome(ended.code == 0, note=f"{family}, {dtype}, seed {seed} {told(ended) if ended.code else ''}")


def _clean(family: str, dtype: str, seed: int, folder: Path) -> None:
    rng = np.random.default_rng(seed)
    model = tiny_folder(family, folder / "model", seed % 7)
    plan = starts.drawn_plan(rng, str(model), dtype)
    texts = starts.drawn_texts(rng, plan.truncation == "windows")
    spec = ExtractSpec(cache=str(folder / "cache"), device="cpu", batch_tokens=int(rng.choice([16, 100, 1024])))
    try:
        extract(plan, texts, spec)
    except TextError:  # a first segment that fills all, as drawn
        return


def stale_hit(workspace: Workspace, rng: Draws, folder: Path) -> Outcome:
    """Change a model folder or a plan after its latents were stored: what can change a latent gives another store."""
    kind, row = rng.deal(CHANGES)
    ended = in_process(partial(_changed, kind, row, folder))
    if not ended.result:
        return Outcome(False, note=f"{row[0]}: {told(ended)}")
    expected = row[-1]
    held = ended.result["outcome"] == expected
    wrong = int(not held and expected == identities.ANOTHER)
    return Outcome(held, 0, wrong, f"{row[0]}: {ended.result['outcome']} store")


def _changed(kind: str, row: tuple[object, ...], folder: Path) -> dict[str, str]:
    family = str(row[1]) if kind == "folder" else "gpt2"
    model = tiny_folder(family, folder / "model")
    before = identities.identity_of(model, folder)
    changes = {}
    if kind == "folder":
        row[2](model)  # type: ignore[operator]
    else:
        changes = row[1]
    after = identities.identity_of(model, folder, **changes)  # type: ignore[arg-type]
    return {"outcome": (identities.ANOTHER, identities.SAME)[before.name == after.name]}


def other_weights(workspace: Workspace, rng: Draws, folder: Path) -> Outcome:
    """Replace weights by others of the same size and times, in place or by renaming; the store is another."""
    model = Path(shutil.copytree(workspace.backbone, folder / "model"))
    put, place = rng.choice([identities.in_place, identities.by_rename]), rng.random()
    ended = in_process(partial(_swapped, model, folder, put, place))
    held = bool(ended.result and ended.result["another"])
    return Outcome(held, 0, int(bool(ended.result) and not held), f"{put.__name__} {'' if held else told(ended)}")


def _swapped(model: Path, folder: Path, put: identities.Change, place: float) -> dict[str, bool]:
    before = identities.identity_of(model, folder)
    path = model / "model.safetensors"
    size = path.stat().st_size
    start = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    identities.keeping_times(path, put, identities.flipped(path, start + int(place * (size - start))))
    return {"another": identities.identity_of(model, folder).name != before.name}


FAULTS = (
    Fault("planted bugs, float32 and bfloat16", len(BUGS), planted_bug),
    Fault("clean starts, of which none may be stopped", 200, clean_start),
    Fault("changes of a model folder or a plan (stale hits)", len(CHANGES), stale_hit),
    Fault("other weights of the same size and time", 30, other_weights),
)

"""Models, recipes, corpora and shards that are made to break a reader: refused in a line, in little time and memory."""

import gzip
import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults.campaign import Draws, Fault, Outcome
from tests.faults.process import in_process, run_command
from tests.faults.workspace import REMEMBERED, Workspace, told

MOST_SECONDS, LONGEST_READING = 2.0, 20.0
"""Of processor time until a refusal, and of a file that can be read."""

MOST_BYTES = 500_000_000

Hostile = Callable[[random.Random, Path], Any]
"""Writes a hostile file; returns its path or settings."""


def _text(name: str, content: str | bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content.encode(errors="surrogatepass") if isinstance(content, str) else content)
        return path

    return write


def _pipe(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        os.mkfifo(folder / name)
        return folder / name

    return make


def _folder(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).mkdir()
        return folder / name

    return make


def _link(name: str, target: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).symlink_to(target)
        return folder / name

    return make


def _bomb(folder: Path) -> Path:
    path = folder / "bomb.txt.gz"
    with gzip.open(path, "wb", 9) as file:
        for _ in range(300):
            file.write(bytes([97]) * 2**20)
    return path


CORPORA: dict[str, Callable[[Path], Path]] = {
    "a line of 300 MB": _text("long.txt", b"a" * 300_000_000),
    "300 MB that unpack to one line": _bomb,
    "zero bytes": _text("zero.txt", b"\0" * 1000 + b"\n"),
    "half characters": _text("half.txt", "dog \ud800\n"),
    "bytes of no encoding": _text("bytes.txt", bytes(range(128, 256)) * 20 + b"\n"),
    "no line": _text("empty.txt", b""),
    "white space only": _text("blank.txt", b" \n\t\n"),
    "JSON 100,000 deep": _text("deep.jsonl", b"[" * 100_000 + b"\n"),
    "objects 100,000 deep": _text("objects.jsonl", b'{"a":' * 100_000 + b"\n"),
    "JSON that is cut": _text("cut.jsonl", b'{"text": "a do'),
    "a number of a million digits": _text("digits.jsonl", b'{"text": "dog", "score": ' + b"9" * 10**6 + b"}\n"),
    "a quotation that is not closed": _text("quote.csv", b'text,score\n"dog' + b",1\n" * 10**6),
    "a million columns": _text("wide.csv", b"a," * 10**6 + b"a\n" + b"1," * 10**6 + b"1\n"),
    "nan as a score": _text("nan.csv", b"a,b,score,split\ndog,cat,nan,train\n"),
    "a parquet file that is none": _text("x.parquet", b"PAR1" + bytes(1000) + b"PAR1"),
    "a parquet file with a long footer": _text("y.parquet", b"PAR1" + struct.pack("<I", 2**31 - 1) + b"PAR1"),
    "gzip that is cut": _text("cut.txt.gz", gzip.compress(b"dog\n" * 1000)[:40]),
    "gzip that is none": _text("none.txt.gz", b"dog\n"),
    "a pipe": _pipe("pipe.txt"),
    "a folder": _folder("folder.txt"),
    "a device without an end": _link("zero.txt", "/dev/zero"),
    "a link to itself": _link("self.txt", "self.txt"),
    "a workbook that is none": _text("x.xlsx", b"PK\3\4" + bytes(100)),
}

RECIPES: dict[str, Callable[[Path], Path]] = {
    "100,000 parts of a key": _text("dotted.toml", ".".join("a" * 100_000) + " = 1\n"),
    "100,000 brackets": _text("brackets.toml", "a = " + "[" * 100_000),
    "tables 100,000 deep": _text("tables.toml", "[" + ".".join("a" * 100_000) + "]\n"),
    "inline tables 10,000 deep": _text("inline.toml", "a = " + "{a = " * 10_000),
    "2 MB of comments": _text("large.toml", "# x\n" * 500_000),
    "bytes": _text("bytes.toml", bytes(range(256))),
    "zero bytes": _text("zero.toml", b"\0" * 100),
    "a number without an end": _text("digits.toml", "[train]\nepochs = " + "9" * 10_000),
    "nan": _text("nan.toml", "[train]\nlearning_rate = nan\n"),
    "a negative size": _text("negative.toml", "[plan]\nmax_tokens = -5\n"),
    "a list for a number": _text("list.toml", "[train]\nepochs = [1, 2]\n"),
    "a table for a text": _text("table.toml", "[plan]\nbackbone = {a = 1}\n"),
    "keys that steer the terminal": _text("escape.toml", '"\\u001b[31mred" = 1\n'),
    "a date": _text("date.toml", "[train]\nepochs = 1979-05-27\n"),
    "a pipe": _pipe("pipe.toml"),
    "a folder": _folder("folder.toml"),
    "a link to itself": _link("self.toml", "self.toml"),
    "a device": _link("zero.toml", "/dev/zero"),
    "half characters": _text("half.toml", b"a = '\xed\xa0\x80'\n"),
    "a template without a place": _text("template.toml", '[plan]\ntemplate = "dog"\n'),
}

CONFIGS: dict[str, Any] = {
    "10^9 layers": {"num_hidden_layers": 10**9},
    "10^18 wide": {"hidden_size": 10**18},
    "no layers": {"num_hidden_layers": 0},
    "minus one layer": {"num_hidden_layers": -1},
    "a width that heads do not divide": {"num_attention_heads": 7},
    "layers as a text": {"num_hidden_layers": "three"},
    "a list for a width": {"hidden_size": [32]},
    "10^12 words": {"vocab_size": 10**12},
    "an activation that is none": {"hidden_act": "__import__('os').system('true')"},
    "a kind that is none": {"model_type": "no-such-model"},
    "a kind with control characters": {"model_type": "\u001b[31mbert"},
    "code of its own": {"auto_map": {"AutoModel": "evil.Evil"}, "model_type": "evil"},
    "nan": {"layer_norm_eps": float("nan")},
    "minus infinity": {"initializer_range": float("-inf")},
    "10^15 positions": {"max_position_embeddings": 10**15},
    "null for layers": {"num_hidden_layers": None},
}

WEIGHTS: dict[str, bytes] = {
    "a header of 2^60 bytes": struct.pack("<Q", 2**60) + b"{}",
    "a header that is cut": struct.pack("<Q", 100) + b'{"a"',
    "no bytes": b"",
    "a pickle": b"\x80\x04\x95",
    "offsets beyond the file": struct.pack("<Q", 68) + json.dumps(
        {"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 10**15]}}
    ).ljust(68).encode(),
    "a shape of 2^62": struct.pack("<Q", 80) + json.dumps(
        {"a": {"dtype": "F32", "shape": [2**62], "data_offsets": [0, 4]}}
    ).ljust(80).encode() + bytes(4),
}  # fmt: skip

RAW_CONFIGS: dict[str, bytes] = {
    "JSON 10,000 deep": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "20 MB": b'{"a": "' + b"x" * 20_000_000 + b'"}',
    "no JSON": b"dog",
    "bytes": bytes(range(256)),
    "a list": b"[]",
    "a number": b"1e999",
    "a number of 10,000 digits": b'{"num_hidden_layers": ' + b"9" * 10_000 + b"}",
}


def hostile_corpus(workspace: Workspace, rng: Draws, folder: Path) -> Outcome:
    """Extract, describe or run a hostile corpus."""
    name, verb = rng.deal([(name, verb) for name in CORPORA for verb in ("extract", "look")])
    path = CORPORA[name](folder)
    looked = partial(run_command, "look", path, "--backbone", workspace.backbone)
    work = looked if verb == "look" else partial(workspace.extract, workspace.cache(folder), path)
    return _refused(work, f"{verb} of a corpus: {name}")


def hostile_recipe(workspace: Workspace, rng: Draws, folder: Path) -> Outcome:
    """Run a hostile recipe, or a batch file."""
    name, verb = rng.deal([(name, verb) for name in RECIPES for verb in ("run", "extract", "batch")])
    path = RECIPES[name](folder)
    return _refused(partial(run_command, verb, path, *_runs(verb, folder)), f"{verb} of a recipe: {name}", must=True)


def hostile_setting(workspace: Workspace, rng: Draws, folder: Path) -> Outcome:
    """Give --set a hostile value."""
    values = [
        "a" * 10**6, "[" * 10_000, "{" * 10_000, ".".join("a" * 10_000) + "=1", "train.epochs=" + "9" * 5000,
        "train.epochs=1e400", "train.learning_rate=nan",  "plan.layers=" + "9" * 400, "=", "=1",
        "plan.template=", "device=cuda:99999999999999999999", "plan.backbone=\x1b[31m", "plan.max_tokens=0",
        "train.seeds=" + ",".join("1" * 10**5), "\u202eplan.views=mean",
    ]  # fmt: skip
    value = rng.deal(values)
    work = partial(run_command, "run", "sts", "--runs", folder / "runs", "--set", value)
    return _refused(work, f"--set {value[:40]!r}", must=True)


def hostile_model(workspace: Workspace, rng: Draws, folder: Path) -> Outcome:
    """Extract with a model folder whose configuration, weights or tokenizer is hostile."""
    model = Path(shutil.copytree(workspace.backbone, folder / "model"))
    kinds: dict[str, Any] = {"config": CONFIGS, "raw": RAW_CONFIGS, "weights": WEIGHTS, "tokenizer": RAW_CONFIGS}
    kind, name = rng.deal([(kind, name) for kind, files in kinds.items() for name in files])
    value = kinds[kind][name]
    if kind == "config":
        config = json.loads((model / "config.json").read_text()) | value
        (model / "config.json").write_text(json.dumps(config))
    else:
        file = {"raw": "config.json", "weights": "model.safetensors", "tokenizer": "tokenizer.json"}[kind]
        (model / file).write_bytes(value)
    cache = folder / "cache"
    work = partial(workspace.extract, cache, None, "--set", f"plan.backbone={model}")
    return _refused(work, f"{kind} of a model: {name}")


def hostile_store(workspace: Workspace, rng: Draws, folder: Path) -> Outcome:
    """Put what is no shard into a store, under the name of one."""
    cache = workspace.full_cache(folder)
    shard = rng.choice(sorted(cache.rglob("*.h5")))
    name = shard.with_name(f"{rng.getrandbits(128):032x}.h5")
    what = rng.choice(["pipe", "device", "folder", "text", "link", "empty", "index pipe"])
    if what == "pipe":
        os.mkfifo(name)
    elif what == "index pipe":
        os.mkfifo(name.with_suffix(".index"))
    elif what == "device":
        name.symlink_to("/dev/zero")
    elif what == "folder":
        name.mkdir()
    elif what == "link":
        name.symlink_to(name.name)
    else:
        name.write_bytes(b"dog" if what == "text" else b"")
    verb = rng.choice(["extract", "verify", "list"])
    words = {"verify": ("cache", "verify", "--cache", cache), "list": ("cache", "list", "--cache", cache)}
    work = partial(workspace.extract, cache) if verb == "extract" else partial(run_command, *words[verb])
    return _refused(work, f"{verb} of a store with a {what} named like a shard")


def hostile_place(workspace: Workspace, rng: Draws, folder: Path) -> Outcome:
    """Put a pipe, a device, a folder or a link to itself in the place of a file that a command opens by itself."""
    cache, runs = workspace.full_cache(folder), folder / "runs"
    runs.mkdir()
    name = rng.choice([*REMEMBERED, ".mine~lock"])
    place = cache / name if name in REMEMBERED else runs / name
    place.unlink(missing_ok=True)
    what = rng.choice(["pipe", "device", "folder", "link"])
    if what == "pipe":
        os.mkfifo(place)
    elif what == "folder":
        place.mkdir()
    else:
        place.symlink_to("/dev/zero" if what == "device" else name)
    run = partial(run_command, "run", "sts", "--runs", runs, "--name", "mine")
    work = partial(workspace.extract, cache) if name in REMEMBERED else run
    return _refused(work, f"a {what} in the place of {name}", must=name not in REMEMBERED)


def _runs(verb: str, folder: Path) -> list[str]:
    return [] if verb == "extract" else ["--runs", str(folder / "runs")]


def _refused(work: Callable[[], int], what: str, must: bool = False) -> Outcome:
    """A refusal is one line with the exit code of bad input or of the machine; what can be read may also be read.

    Args:
        must: whether it cannot be read.
    """
    ended = in_process(work, limit=60)
    fine = ended.is_one_line or (ended.code == 0 and not must and "Traceback" not in ended.said)
    most = MOST_SECONDS if ended.code else LONGEST_READING
    quick = ended.computed <= most and ended.seconds <= 50 and ended.grown <= MOST_BYTES
    controls = [letter for letter in ended.said if letter in "\x1b\u202e"]
    cost = f"{ended.computed:.1f} s, {ended.grown / 1e6:.0f} MB"
    held = fine and quick and not controls
    return Outcome(held, note=f"{what}: {cost}, code {ended.code} {'' if held else told(ended)}")


FAULTS = (
    Fault("hostile corpora", 60, hostile_corpus),
    Fault("hostile recipes", 60, hostile_recipe),
    Fault("hostile settings", 25, hostile_setting),
    Fault("hostile models", 40, hostile_model),
    Fault("pipes, devices and folders in the place of a file", 30, hostile_place),
    Fault("files in a store that are no shards", 30, hostile_store),
)

"""Kill ``permafrost extract`` again and again on the way through a corpus, and count what runs twice.

    python -m benchmarks.extraction.kills --backbone FOLDER

FOLDER is a small causal model; the texts are those of benchmarks.extraction.scaling. Each time the command is killed
with SIGKILL at a random moment, no earlier than some texts were committed since it began. Then it runs to its end: what
it runs is all that was not committed, and the store holds every text once.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.extraction.scaling import write_texts
from benchmarks.machine import describe
from permafrost.data.store.shard import Shard


def shards_of(cache: Path) -> set[Path]:
    """The committed shards."""
    return set(cache.rglob("*.h5"))


def stored_texts(cache: Path) -> list[bytes]:
    """Keys of the texts in all shards, those that are twice in it too."""
    return [key for path in shards_of(cache) for key in Shard(path).keys.tolist()]


def killed(command: list[str], cache: Path, most_seconds: float, rng: random.Random) -> float:
    """Run a command and kill it; return the seconds that it had."""
    before, started = shards_of(cache), time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while shards_of(cache) <= before and process.poll() is None:
            time.sleep(0.05)
        time.sleep(rng.uniform(0, most_seconds))
        assert process.poll() is None, "it ended before it was killed; ask for more texts or fewer seconds"
        process.kill()
    return time.perf_counter() - started


def main() -> None:
    """Print one line a kill, and one for the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0, help="most seconds from the first new shard to a kill")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backbone", required=True, help="folder of a small causal model")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    print(describe("cpu"))
    print(f"{Path(options.backbone).name}, layer 3; {options.texts:,} texts")
    with tempfile.TemporaryDirectory() as folder:
        texts, cache = Path(folder) / "texts.txt", Path(folder) / "cache"
        write_texts(texts, options.texts)
        words = ["extract", "pairs", "--data", str(texts), "--backbone", options.backbone]
        words += ["--set", "plan.layers=3", "--set", f"extract.cache={cache}"]
        command = [sys.executable, "-m", "benchmarks.processes", "benchmarks.processes", "command", json.dumps(words)]
        for number in range(options.kills):
            seconds = killed(command, cache, options.seconds, rng)
            print(
                f"kill {number + 1} after {seconds:.1f} s: {len(stored_texts(cache)):,} texts are committed", flush=True
            )
        committed = stored_texts(cache)
        last = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
        done = json.loads(last)["result"]
        stored = stored_texts(cache)
        print(f"to the end: {done['texts_run']:,} texts run, {len(stored):,} stored, {len(set(stored)):,} distinct")
        twice = len(committed) + done["texts_run"] - options.texts
        print(f"committed before and run again: {twice:,}")
        assert set(committed) <= set(stored)


if __name__ == "__main__":
    main()

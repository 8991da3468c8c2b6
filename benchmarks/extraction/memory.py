"""Peak memory of stage one against the number of texts: minilm, all layers, mean view, GenericsKB sentences.

    python -m benchmarks.extraction.memory

Each size runs in a process of its own with an empty cache. Once a shard's worth of latents has been gathered the peak
should hardly move: what still grows is what is known of every text, its words, its token ids and its pack.
"""

import argparse
import tempfile

from benchmarks.machine import describe
from benchmarks.processes import measure, peak_memory
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.readers.load import load_corpus


def run(texts: int) -> tuple[int, int]:
    """Run stage one over ``texts`` sentences; return how many ran, and the peak before stage one in bytes."""
    import torch  # noqa: F401
    import transformers  # noqa: F401

    from permafrost.extract.extraction import extract

    chosen = load_corpus(CorpusSpec(name="genericskb", limit=texts)).texts
    before = peak_memory()
    with tempfile.TemporaryDirectory() as cache:
        done = extract(CapturePlan(backbone="minilm"), chosen, ExtractSpec(cache=cache))
    return done.texts_run, before


def main() -> None:
    """Print one line per size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, nargs="+", default=[13_500, 27_000, 54_000])
    options = parser.parse_args()
    print(describe("cpu"))
    print(f"{'texts':>8}{'latents, MB':>14}{'peak memory, MB':>18}{'of it before, MB':>19}")
    for size in options.texts:
        measured = measure(run, size)
        ran, before = measured.result
        print(f"{ran:8,}{ran * 7 * 384 * 2 / 1e6:14,.0f}{measured.peak / 1e6:18,.0f}{before / 1e6:19,.0f}")


if __name__ == "__main__":
    main()

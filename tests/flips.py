"""Bits that flip in the files of a folder, one at a time."""

import random
from collections.abc import Iterator
from pathlib import Path


def flipped(folder: Path, times: int, seed: int = 0) -> Iterator[tuple[Path, int]]:
    """A file in which one bit differs, and which bit; put right before the next. All files are as likely."""
    rng = random.Random(seed)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    for turn in range(times):
        path = files[turn] if turn < len(files) < times else rng.choice(files)
        content = path.read_bytes()
        place = rng.randrange(8 * len(content))
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        yield path, place
        path.write_bytes(content)

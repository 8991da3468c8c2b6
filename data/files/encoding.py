"""Encodings of files of text: UTF-8, UTF-16 and UTF-32 by their mark, UTF-8 without one, or what is set."""

import codecs
import re
from pathlib import Path

from permafrost.data.errors import CorpusError

MARKS = {
    codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
"""First bytes of a file -> its encoding; the mark of UTF-32 begins with that of UTF-16."""

TYPOGRAPHIC = "‘’“”–—…€£°«»´•¿¡§"
"""Characters of cp1252 beside letters that texts hold."""

MANY_ZEROS = 0.2
"""Share of zero bytes from which on a file is no UTF-8."""


def find_encoding(path: Path, sample: bytes, encoding: str = "auto") -> str:
    """Return the encoding of a file, from the mark at its start; without one it is UTF-8.

    Args:
        path: of the file, for messages.
        sample: its first bytes.
        encoding: the name of an encoding takes that one.

    Raises:
        CorpusError: there is no such encoding; or the file is UTF-16 without a mark, or no text.
    """
    if encoding != "auto":
        try:
            "".encode(encoding)  # refuses a codec that is no encoding of text, and the next one that cannot go on
            codecs.getincrementaldecoder(encoding)("surrogateescape").decode(b"")
            return codecs.lookup(encoding).name.replace("_", "-")
        except (LookupError, UnicodeError):
            raise CorpusError(
                f'corpus.encoding = "{encoding}": there is no such encoding; set it to one of Python\'s, e.g. "utf-8", '
                '"cp1252", "latin-1" or "utf-16-le".'
            ) from None
    marked = next((name for mark, name in MARKS.items() if sample.startswith(mark)), "")
    if not marked and (zeros := sample.count(0)) > MANY_ZEROS * len(sample):
        at_odd = sample[1::2].count(0)
        guess = "utf-16-le" if at_odd > 0.9 * zeros else "utf-16-be" if at_odd < 0.1 * zeros else ""
        if guess:
            raise CorpusError(f'{path}: it looks like UTF-16 without a mark; set corpus.encoding = "{guess}".')
        raise CorpusError(f"{path}: it is no file of text: {zeros:,} of its first {len(sample):,} bytes are zero.")
    return marked or "utf-8"


def tells_encoding(sample: bytes) -> bool:
    """Return whether the first bytes of a file begin with a mark, or are UTF-8."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return sample.startswith(tuple(MARKS))
    return 0 not in sample


def guess_encoding(sample: bytes) -> str:
    """Return the encoding that a file which is not UTF-8 could be; empty if there is no guess."""
    from charset_normalizer import from_bytes  # slow to import, and needed only for a message

    best = from_bytes(sample).best()
    if best and _is_western(sample):
        return "cp1252"
    return best.encoding if best else ""


def _is_western(sample: bytes) -> bool:
    """Return whether bytes beyond ASCII are letters in cp1252, one or two in a row, as in western languages."""
    runs = re.findall(rb"[\x80-\xff]+", sample)
    try:
        text = b"".join(runs).decode("cp1252")
    except UnicodeDecodeError:
        return False
    letters = sum(character.isalpha() or character in TYPOGRAPHIC for character in text)
    return 0 < len(text) <= 2 * len(runs) and letters > 0.9 * len(text)

"""Documents to pretrain on: files of text, or a data set of the hub that is read as a stream."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from permafrost.data.corpora.records import CorpusError, check_text
from permafrost.data.errors import MachineError, first_line
from permafrost.data.files.column_names import TEXTS, plain_name
from permafrost.data.language.spec import LanguageSpec
from permafrost.data.readers.plain_text import Documents, find_text

HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+(?<!\.txt)(?<!\.gz)")
"""Id of a data set on the hub."""


def open_documents(spec: LanguageSpec) -> Iterable[str]:
    """Return the documents of a text to pretrain on; each iteration reads them anew, and none of them is held.

    Raises:
        CorpusError: there is no such text.
    """
    try:
        return Documents(find_text(spec.corpus), spec.lines)
    except CorpusError:
        if not HUB_ID.fullmatch(spec.corpus):
            raise
        return HubDocuments(spec.corpus, spec.config)


class HubDocuments:
    """The texts of the training rows of a hub data set, over the network: no file of it is kept."""

    def __init__(self, name: str, config: str) -> None:
        self._name, self._config = name, config

    def __iter__(self) -> Iterator[str]:
        """Yield the texts of all rows; empty ones are left out.

        Raises:
            CorpusError: the data set cannot be opened, has no training rows, or no column of texts.
            MachineError: the network went away.
        """
        import datasets  # takes seconds, and is needed only for data sets of the hub

        try:
            rows = datasets.load_dataset(self._name, self._config or None, split="train", streaming=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise CorpusError(
                f"language.corpus = '{self._name}': no such file or folder, and no data set of the hub that can be "
                f"opened ({first_line(error)}); its configuration is language.config."
            ) from error
        number = 0
        try:
            for number, fields in enumerate(rows, 1):
                text = fields[self._column(fields)]
                if text and text.strip():
                    check_text(f"{self._name}:{number}", "the document", text)
                    yield text
        except OSError as error:
            raise MachineError(
                f"{self._name}: the stream broke off after {number:,} rows ({first_line(error)}); run the same command "
                "again."
            ) from error
        if not number:
            raise CorpusError(f"{self._name}: it holds no text.")

    def _column(self, fields: dict[str, Any]) -> str:
        """Return the column of texts: the one of the most usual name, else the only one that holds a string."""
        texts = [name for name, value in fields.items() if isinstance(value, str)]
        named = [name for usual in TEXTS for name in texts if plain_name(name) == usual]
        if not named and len(texts) != 1:
            raise CorpusError(f"{self._name}: no column is called text; it has {', '.join(fields)}.")
        return (named or texts)[0]

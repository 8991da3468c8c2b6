"""Tables of a run folder as they are read."""

from pathlib import Path

import pandas as pd

from permafrost.probes.results.files import Schema, with_schema
from permafrost.probes.tasks.examples import class_errors

CLASSES = 150


def test_a_table_of_many_classes_takes_another_column_without_a_warning():
    names = [f"probability_{index}" for index in range(CLASSES)]
    frame = pd.DataFrame({"sentence": ["a", "b"], "target": ["0", "1"], "label": ["1", "1"]}, dtype=str)
    frame = pd.concat([frame, pd.DataFrame("0.5", index=frame.index, columns=names)], axis=1)
    read = with_schema(Path("predictions.csv"), frame, Schema(("sentence", "target", "label"), tuple(names)))
    assert list(read) == [*frame]
    assert (read[names] == 0.5).all(axis=None)
    assert len(class_errors(read).rows) == 1  # pandas warns if the table is in too many pieces; a warning is an error

"""Work in parts: what does not fit runs in halves, everything once and in order, and later parts stay small."""

import pytest
import torch

from permafrost.data.device.memory import PartSize

Part = tuple[int, ...]


def halves(part: Part) -> list[Part]:
    middle = len(part) // 2
    return [part[:middle], part[middle:]] if middle else []


@pytest.mark.parametrize("most", [1, 3, 7, 100])
@pytest.mark.parametrize("sizes", [[1], [8, 3, 8], [37, 5, 37]])
def test_parts_that_do_not_fit_run_in_halves_and_nothing_twice(most, sizes):
    size, tried = PartSize(), list[int]()

    def run(part: Part) -> Part:
        tried.append(len(part))
        if len(part) > most:
            raise torch.OutOfMemoryError
        return part

    for count in sizes:
        found = list(size.run(tuple(range(count)), len, halves, run))
        assert [item for part in found for item in part] == list(range(count))
        failed = [number for number in tried if number > most]
        assert sorted(set(failed), reverse=True) == failed, "what was too large once is not tried again"


def test_what_cannot_be_divided_fails():
    def run(part: Part) -> Part:
        raise torch.OutOfMemoryError("none is left")

    with pytest.raises(torch.OutOfMemoryError, match="none is left"):
        list(PartSize().run((1, 2, 3), len, halves, run))
    with pytest.raises(ValueError, match="another"):
        list(PartSize().run((1, 2, 3), len, halves, lambda part: (_ for _ in ()).throw(ValueError("another"))))

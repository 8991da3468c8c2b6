"""Texts that a run predicts or embeds, extracted by a pool into their store; predictions then read them from there."""

from collections.abc import Sequence

from permafrost.data.errors import MachineError
from permafrost.data.progress import Progress
from permafrost.data.spec import SpecError
from permafrost.scaling.request import TextsRequest
from permafrost.stage_one import PlannedTexts


def extract_new_texts(planned: Sequence[PlannedTexts], workers: int, ray: str, progress: Progress) -> None:
    """Extract what is not stored of the texts that are to be read, and have them read from their stores.

    Args:
        workers: number of processes, or of actors on a cluster; 0 or 1 without a cluster does nothing.
        ray: address of a Ray cluster, as of :func:`permafrost.scaling.ray_pool.extract_on_ray`; empty uses none.

    Raises:
        InputError: a text or the backbone cannot be used, or nothing answers at the address.
        MachineError: as of :func:`permafrost.extract.extraction.extract`; or some texts could not be run.
    """
    if workers < 0:
        raise SpecError(f"--workers must be at least 1, got {workers}.")
    if not ray and workers < 2:
        return
    for plan, spec, texts, read_from in planned:
        request = TextsRequest(((plan, tuple(texts)),), spec)
        if ray:
            from permafrost.scaling.ray_pool import extract_on_ray

            extracted = extract_on_ray(request, ray, workers, progress)
        else:
            from permafrost.scaling.processes import extract_in_processes

            extracted = extract_in_processes(request, workers, progress)
        if extracted.missing:
            raise MachineError(
                f"{extracted.missing:,} texts could not be run; the others are stored, and the same command goes on."
            )
        read_from(extracted.latents[0].store)

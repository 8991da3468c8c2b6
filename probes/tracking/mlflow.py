"""MLflow: a run with a nested run for each training, where the tracking URI says.

MLflow keeps them where MLFLOW_TRACKING_URI says, else in ``mlflow.db`` in the working folder, or in ``mlruns`` if there
are runs in it. The experiment is that of MLflow's environment, else ``permafrost``.
"""

import getpass
import logging
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from permafrost.probes.tracking.series import WHOLE, Series, Status, TrackedRun, Values

TOKEN, SERIES = "permafrost.run", "permafrost.series"
"""Tags by which a run is found again when another process continues it."""

EXPERIMENT = "permafrost"

MOST_PARAMETERS, LONGEST_VALUE = 100, 5000
"""Parameters of one request, and characters of a value."""

STATUS = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}


class MLflow:
    """Runs of an MLflow experiment: the run as a whole, and its trainings nested in it."""

    def __init__(self, run: TrackedRun) -> None:
        for name, value in {"MAX_RETRIES": "2", "TIMEOUT": "20"}.items():  # else a server that is gone holds up minutes
            os.environ.setdefault(f"MLFLOW_HTTP_REQUEST_{name}", value)
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):  # what they say of a database that they create
            logging.getLogger(name).setLevel(logging.WARNING)

        self._run, self._client = run, MlflowClient()
        self._experiment = _experiment(self._client)
        self._found: dict[str, str] = {}
        """Series -> id of the MLflow run of an earlier process."""
        self._unended: set[str] = set()
        """Series that an earlier process was killed in, and that this one has not continued."""
        token = ""
        while True:
            page = self._client.search_runs(
                [self._experiment], f"tags.`{TOKEN}` = '{run.token}'", max_results=1000, page_token=token or None
            )
            self._found |= {each.data.tags[SERIES]: each.info.run_id for each in page}
            self._unended |= {each.data.tags[SERIES] for each in page if each.info.status == "RUNNING"}
            if not (token := page.token):
                break
        self._ids: dict[str, str] = {}
        self._last: dict[str, dict[str, int]] = {}
        """Series -> metric -> last step."""

    def begin(self, series: Series) -> None:
        """Begin a run, or set one of an earlier process to running again."""
        if series.name in self._ids:
            return
        self._last[series.name] = {}
        self._unended.discard(series.name)
        if found := self._found.get(series.name):
            self._ids[series.name] = found
            known = self._client.get_run(found).data
            for key in known.metrics:
                steps = [metric.step for metric in self._client.get_metric_history(found, key)]
                self._last[series.name][key] = max(steps)
            self._client.update_run(found, "RUNNING")
            if known.params:
                return
        else:
            tags = {TOKEN: self._run.token, SERIES: series.name, "mlflow.source.name": "permafrost"} | dict(series.tags)
            if series.name != WHOLE:
                tags["mlflow.parentRunId"] = self._ids[WHOLE]
            with suppress(Exception):  # a user without a name
                tags["mlflow.user"] = getpass.getuser()
            created = self._client.create_run(self._experiment, tags=tags, run_name=series.name or self._run.name)
            self._ids[series.name] = created.info.run_id
        from mlflow.entities import Param

        params = [Param(_key(key), str(value)[:LONGEST_VALUE]) for key, value in series.parameters.items()]
        for start in range(0, len(params), MOST_PARAMETERS):
            self._client.log_batch(self._ids[series.name], params=params[start : start + MOST_PARAMETERS])

    def log(self, name: str, step: int, values: Values) -> None:
        """Log metrics after an epoch."""
        from mlflow.entities import Metric

        last, now = self._last[name], int(time.time() * 1000)
        new = {_key(key): value for key, value in values.items() if last.get(_key(key), -1) < step}
        if new:
            metrics = [Metric(key, value, now, step) for key, value in new.items()]
            self._client.log_batch(self._ids[name], metrics=metrics)
            last.update(dict.fromkeys(new, step))

    def settle(self, path: Path) -> None:
        """Give the run the name of its folder."""
        self._client.update_run(self._ids[WHOLE], name=path.name)

    def finish(self, name: str, values: Values, tags: Mapping[str, str], status: Status) -> None:
        """End a run, with its final metrics at its last epoch."""
        from mlflow.entities import RunTag

        self.log(name, max([0, *self._last[name].values()]), values)
        self._client.log_batch(self._ids[name], tags=[RunTag(key, value) for key, value in tags.items()])
        self._client.set_terminated(self._ids[name], STATUS[status])
        if name == WHOLE:
            for unended in self._unended:  # trials of a study that was killed: others run in their place
                self._client.set_terminated(self._found[unended], STATUS["killed"])


def _experiment(client: Any) -> str:
    """Return the id of the experiment: that which the user has set, else the one called permafrost."""
    from mlflow.tracking.fluent import _get_experiment_id

    chosen = str(_get_experiment_id())
    if chosen != "0" or os.environ.get("MLFLOW_EXPERIMENT_ID") or os.environ.get("MLFLOW_EXPERIMENT_NAME"):
        return chosen
    if client.get_experiment_by_name(EXPERIMENT) is None:
        with suppress(Exception):  # another run has just created it
            return str(client.create_experiment(EXPERIMENT))
    return str(client.get_experiment_by_name(EXPERIMENT).experiment_id)


def _key(name: str) -> str:
    """Return a name of a metric or parameter as MLflow takes it."""
    return re.sub(r"[^\w\-. /]", "_", name, flags=re.ASCII)[:250]

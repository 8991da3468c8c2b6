"""Storage of studies: an Optuna study in a journal file or in a database, and the locks that keep it to one process."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from sqlalchemy import Connection, Engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from permafrost.data.errors import InputError, MachineError
from permafrost.data.spec import fingerprint
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.search.journal import Journal
from permafrost.probes.search.samplers import make_pruner, make_sampler
from permafrost.probes.search.trial_log import TrialLog, cause_of
from permafrost.probes.search.trials import STUDY_FORMAT, first_difference, study_identity

IDENTITY = "permafrost"
"""User attribute of a study: what identifies its recipe and search space."""


@contextlib.contextmanager
def open_study(name: str, recipe: Recipe, storage: str | None, journal: Path) -> Iterator[TrialLog]:
    """Open a study by name, or create it: in the database ``storage``, or else in the file ``journal``.

    However the context ends, no trial remains marked as running if the storage can still be written.

    Raises:
        SpecError: there is no such sampler or pruner, or an option of theirs is wrong.
        InputError: the database cannot be reached, or holds another study of this name.
        MachineError: the storage fails while it is open.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    make_sampler(recipe.study, recipe.study.ranges(), 0)
    pruner, shown = make_pruner(recipe.study), shown_storage(storage, journal)
    trial_log = None
    with contextlib.ExitStack() as stack:
        opened = _open_database(storage, name, stack) if storage else JournalStorage(cast(Any, Journal(journal)))
        try:
            trial_log = TrialLog(_load_study(opened, name, recipe, pruner, shown), recipe)
            trial_log.recover()
            yield trial_log
        except (SQLAlchemyError, StorageInternalError) as error:
            safe = f"its {trial_log.finished:,} finished trials are safe there" if trial_log else "nothing was begun"
            raise MachineError(
                f"study '{name}': {shown} no longer answers ({cause_of(error)}); {safe}: "
                "run the same command again to go on."
            ) from error
        except BaseException:
            if trial_log:
                with contextlib.suppress(Exception):
                    trial_log.recover()
            raise


def shown_storage(storage: str | None, journal: Path) -> str:
    """Return the storage as shown to users: without its password."""
    return str(journal) if storage is None else make_url(storage).render_as_string(hide_password=True)


def _open_database(url: str, name: str, stack: contextlib.ExitStack) -> RDBStorage:
    """Open the database, and lock the study if it is PostgreSQL; both end with the stack."""
    source = f"--storage {shown_storage(url, Path())}"
    try:
        dialect = make_url(url).get_backend_name()
        keepalive = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
        arguments = {"connect_timeout": 10} | keepalive if dialect == "postgresql" else {}
        storage = RDBStorage(url, {"pool_pre_ping": True, "connect_args": arguments})
    except ImportError as error:
        raise InputError(
            f"{source}: its driver is missing; for PostgreSQL: pip install 'permafrost[postgresql]'."
        ) from error
    except (SQLAlchemyError, StorageInternalError, RuntimeError) as error:
        raise InputError(f"{source} cannot be reached ({cause_of(error)}).") from error
    stack.callback(storage.engine.dispose)
    stack.callback(storage.remove_session)
    if dialect == "postgresql":
        _lock_study(storage.engine, name, source, stack)
    return storage


def _lock_study(engine: Engine, name: str, source: str, stack: contextlib.ExitStack) -> None:
    """Take PostgreSQL's advisory lock, which ends with the connection; lock files protect a study on one host only."""
    connection: Connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    stack.callback(connection.invalidate)
    key = int(fingerprint(name), 16) >> 1
    if not connection.execute(text("select pg_try_advisory_lock(:key)"), {"key": key}).scalar():
        raise InputError(f"study '{name}' in {source} is running elsewhere: wait for it, or stop it first.")


def _load_study(
    storage: BaseStorage, name: str, recipe: Recipe, pruner: optuna.pruners.BasePruner, shown: str
) -> optuna.Study:
    """Load the study, or create it; raise an :class:`InputError` if another recipe began it."""
    if name not in [study.study_name for study in storage.get_all_studies()]:
        storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE], name)
    study = optuna.load_study(storage=storage, study_name=name, pruner=pruner)
    identity, stored = study_identity(recipe), study.user_attrs.get(IDENTITY)
    if stored is None:
        if study.get_trials(deepcopy=False):
            raise InputError(f"study '{name}' in {shown} was not created by permafrost; give this one another name.")
        study.set_user_attr(IDENTITY, identity)
    elif stored.get("format") != STUDY_FORMAT:
        raise InputError(
            f"study '{name}' in {shown} was begun by another version of permafrost; give this one another name."
        )
    elif key := first_difference(identity, stored):
        raise InputError(
            f"study '{name}' in {shown} was begun with another recipe or space: '{key}' differs. "
            "Go on with what it was begun with, or give this one another name."
        )
    return study

"""Storage of studies: an Optuna study in a journal file, which one session at a time runs, or in a database."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from sqlalchemy import NullPool, create_engine, make_url
from sqlalchemy.exc import SQLAlchemyError

from permafrost.data.errors import InputError, MachineError
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.search.journal import Journal
from permafrost.probes.search.locks import AdvisoryLocks, StudyLocks
from permafrost.probes.search.samplers import make_pruner, make_sampler
from permafrost.probes.search.trial_log import TrialLog, cause_of
from permafrost.probes.search.trials import STUDY_FORMAT, first_difference, study_identity

IDENTITY = "permafrost"
"""User attribute of a study: what identifies its recipe and search space."""


@contextlib.contextmanager
def open_study(name: str, recipe: Recipe, storage: str | None, journal: Path) -> Iterator[TrialLog]:
    """Open a study by name, or create it: in the database ``storage``, or else in the file ``journal``.

    In a PostgreSQL database, sessions of several hosts may have it open at once; others are for one session at a time,
    which the caller sees to. However the context ends, no trial of this session remains marked as running if the
    storage can still be written.

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
        opened, locks = _open_storage(storage, name, journal, stack)
        try:
            with locks.exclusive():
                trial_log = TrialLog(_load_study(opened, name, recipe, pruner, shown), recipe, locks)
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
                    trial_log.abandon()
            raise


def shown_storage(storage: str | None, journal: Path) -> str:
    """Return the storage as shown to users: without its password."""
    return str(journal) if storage is None else make_url(storage).render_as_string(hide_password=True)


def is_for_many(storage: str | None) -> bool:
    """Return whether sessions of several hosts may run a study in this storage at once."""
    return storage is not None and make_url(storage).get_backend_name() == "postgresql"


def _open_storage(
    url: str | None, name: str, journal: Path, stack: contextlib.ExitStack
) -> tuple[BaseStorage, StudyLocks]:
    """Open the storage of a study, and its locks; both are closed with the stack."""
    if url is None:
        return JournalStorage(cast(Any, Journal(journal))), StudyLocks()
    source = f"--storage {shown_storage(url, Path())}"
    try:
        return _open_database(url, name, stack)
    except ImportError as error:
        raise InputError(
            f"{source}: its driver is missing; for PostgreSQL: pip install 'permafrost[postgresql]'."
        ) from error
    except (SQLAlchemyError, StorageInternalError, RuntimeError) as error:
        raise InputError(f"{source} cannot be reached ({cause_of(error)}).") from error


def _open_database(url: str, name: str, stack: contextlib.ExitStack) -> tuple[RDBStorage, StudyLocks]:
    locks = StudyLocks()
    arguments: dict[str, Any] = {}
    if is_for_many(url):
        arguments = {"connect_timeout": 10, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
        engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args=arguments)
        locks = AdvisoryLocks(engine, name)
        stack.callback(locks.close)
    with locks.making_tables() if isinstance(locks, AdvisoryLocks) else contextlib.nullcontext():
        storage = RDBStorage(url, {"pool_pre_ping": True, "connect_args": arguments})
    stack.callback(storage.engine.dispose)
    stack.callback(storage.remove_session)
    return storage, locks


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

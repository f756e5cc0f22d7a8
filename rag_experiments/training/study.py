"""A search's memory: the study, kept in the sweep's folder, opened by the sweep, its jobs and `optuna-dashboard`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from rag_experiments.core.errors import RequestError
from rag_experiments.training.optuna_parts import make_pruner, optuna_module

log = logging.getLogger(__name__)

JOURNAL = "study.log"
STUDY = "sweep"
"""The study's name where the sweep's folder has the storage to itself."""
_NAMED = "#study="


def storage_at(address: str) -> Any:
    """The storage at `address`: a journal file's path, or a database URL (`sqlite:///…`, `postgresql://…`)."""
    optuna = optuna_module()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage, _ = split_address(address)
    if "://" in storage:
        return optuna.storages.RDBStorage(storage)
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    # The lock is a file made exclusively, which network file systems also honour.
    return optuna.storages.JournalStorage(JournalFileBackend(storage, lock_obj=JournalFileOpenLock(storage)))


def study_address(storage: str | None, folder: Path) -> str:
    """`hydra.sweeper.storage`, or the journal in the sweep's folder; a database in it for `sqlite`.

    In a storage outside the folder other sweeps may have their studies: there ours is called as the sweep is.
    """
    if storage is None:
        return str((folder / JOURNAL).resolve())
    if storage == "sqlite":
        return f"sqlite:///{(folder / 'study.db').resolve()}"
    return f"{storage}{_NAMED}{folder.name}"


def split_address(address: str) -> tuple[str, str]:
    """The storage, and the study's name in it."""
    storage, _, name = address.partition(_NAMED)
    return storage, name or STUDY


def open_study(address: str, direction: str, sampler: Any, pruner: Any) -> Any:
    """The study at `address`, made where there is none.

    Raises:
        RequestError: the storage does not open, or holds a study of the other direction.
    """
    optuna = optuna_module()
    storage, name = split_address(address)
    try:
        study = optuna.create_study(
            storage=storage_at(address),
            study_name=name,
            sampler=sampler,
            pruner=pruner,
            direction=direction,
            load_if_exists=True,
        )
    except Exception as error:
        raise RequestError(f"hydra.sweeper.storage={storage} does not open: {str(error).splitlines()[0]}") from error
    if study.direction.name.lower() != direction:
        raise RequestError(
            f"hydra.sweeper.direction={direction}, but the study at {storage} is to {study.direction.name.lower()}: "
            "choose another name=…, or the study's direction"
        )
    return study


def load_trial(address: str, number: int) -> Any:
    """The running trial of that number, for reports from its job.

    Raises:
        RequestError: the study has no such trial.
    """
    optuna = optuna_module()
    _, name = split_address(address)
    study = optuna.load_study(study_name=name, storage=storage_at(address), pruner=stored_pruner(address))
    trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    if number not in trials:
        raise RequestError(f"sweep.trial={number}: the study at {address} has no such trial")
    return optuna.trial.Trial(study, trials[number]._trial_id)


def remember_pruner(study: Any, name: str, options: dict[str, Any]) -> None:
    """Keep the pruner's settings in the study: Optuna keeps results, and jobs must judge as the sweep does."""
    study.set_user_attr("pruner", {"name": name, "options": options})


def stored_pruner(address: str) -> Any:
    """The pruner that the sweep chose."""
    _, name = split_address(address)
    study = optuna_module().load_study(study_name=name, storage=storage_at(address))
    stored = study.user_attrs.get("pruner") or {"name": "none", "options": {}}
    return make_pruner(stored["name"], stored["options"])

"""Hydra's plugins: it finds sweepers and launchers only in the top-level package `hydra_plugins`.

Hydra imports this file at every start, so neither this file nor its imports may be slow.
"""

from __future__ import annotations

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from rag_experiments.sweeps import cluster, launchers, override_grid, search

OPEN = {
    "hydra/sweeper": {"open_grid": ["params"], "open_search": ["params", "sampler_options", "pruner_options"]},
    "hydra/launcher": {"open_submitit": ["parameters"], "open_ray": ["init"]},
}
"""Nodes whose keys belong to another package, such as `hydra.launcher.parameters.slurm_partition`. Hydra would require
a `+` before each of these keys. The YAML files in `conf/hydra/` name the nodes in their defaults."""

for group, nodes in OPEN.items():
    for name, keys in nodes.items():
        node = DictConfig({key: DictConfig({}, flags={"struct": False}) for key in keys})
        ConfigStore.instance().store(group=group, name=name, node=node)


class GridSweeper(override_grid.GridSweeper):
    """`hydra/sweeper=grid`"""


class SerialLauncher(launchers.SerialLauncher):
    """`hydra/launcher=serial`"""


class LocalLauncher(launchers.LocalLauncher):
    """`hydra/launcher=local`"""


class OptunaSweeper(search.OptunaSweeper):
    """`hydra/sweeper=optuna`"""


class SubmititLauncher(cluster.SubmititLauncher):
    """`hydra/launcher=slurm` and `submitit_local`"""


class RayLauncher(cluster.RayLauncher):
    """`hydra/launcher=ray`"""

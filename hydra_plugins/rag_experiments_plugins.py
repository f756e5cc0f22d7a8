"""Where Hydra looks for plugins: it takes sweepers and launchers from the top-level package `hydra_plugins` only.

Imported at every start of Hydra, so nothing heavy is imported here or behind it.
"""

from __future__ import annotations

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from rag_experiments.sweeps import cluster, launchers, override_grid, search

OPEN = {
    "hydra/sweeper": {"open_grid": ["params"], "open_search": ["params", "sampler_options", "pruner_options"]},
    "hydra/launcher": {"open_submitit": ["parameters"], "open_ray": ["init"]},
}
"""Keys whose own keys are another package's, such as `hydra.launcher.parameters.slurm_partition`: Hydra would want
a `+` before each. The YAML files in `conf/hydra/` name these nodes in their defaults."""

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

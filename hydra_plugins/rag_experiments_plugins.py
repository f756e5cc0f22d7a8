"""Where Hydra looks for plugins: it takes sweepers and launchers from the top-level package `hydra_plugins` only.

Imported at every start of Hydra, so nothing heavy is imported here or behind it.
"""

from __future__ import annotations

from rag_experiments.sweeps import cluster, grid, launchers, search


class GridSweeper(grid.GridSweeper):
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

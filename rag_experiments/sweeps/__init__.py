"""Sweeps: grids and searches of runs, on one machine or many. The same command continues an interrupted sweep.

    naming     the name of a job's folder: the settings that differ
    jobs       a job, how it ended, and whether it must run at all
    execute    run one job in this process or in its own
    launchers  run jobs one after another, in parallel, or on a cluster (`cluster`)
    grid       every combination                    } Hydra's sweepers
    search     Optuna, ask and tell, with pruning   }
    session    what both share: checks before the first job, lines of output, closing table, exit status

Hydra finds plugins only in the top-level package `hydra_plugins`; its few lines import from here.
"""

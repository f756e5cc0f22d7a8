"""Sweeps that survive: grids and searches of runs, resumed by the same command, on one machine or many.

    naming     what a job's folder is called: what differs
    jobs       a job, how it ended, and whether it must run at all
    execute    one job in this process or in its own
    launchers  jobs one after another, in parallel, on a cluster (`cluster`)
    grid       every combination                    } Hydra's sweepers
    search     Optuna, ask and tell, with pruning   }
    session    what both share: checks before the first job, lines, closing table, exit status

Hydra takes plugins from the top-level package `hydra_plugins` only; the few lines there point here.
"""

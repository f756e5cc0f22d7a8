"""The training algorithms, one file each: equation, loss as a pure function, config, trainer."""

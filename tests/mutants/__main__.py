"""`python -m tests.mutants`: see docs/testing.md. `make mutants` calls it."""

from __future__ import annotations

import os
import sys

from tests.mutants.runner import ENVIRONMENT

if any(os.environ.get(name) != value for name, value in ENVIRONMENT.items()):
    # Before any library is imported: they read these once.
    os.execve(sys.executable, [sys.executable, "-m", "tests.mutants", *sys.argv[1:]], {**os.environ, **ENVIRONMENT})

from tests.mutants.command import main

main()

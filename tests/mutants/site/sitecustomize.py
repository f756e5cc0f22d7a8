"""Python reads this at the start of every process that a test starts while reached lines are measured (inside.py)."""

import os

if os.environ.get("COVERAGE_PROCESS_START"):
    import coverage

    coverage.process_startup()

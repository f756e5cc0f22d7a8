"""The plugin that finds what we call and libraries will drop: it hears both voices, and blames the caller only."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LIBRARY = """
import logging, warnings
def warns(): warnings.warn("`warns` is deprecated", FutureWarning, stacklevel=1)
def logs(): logging.getLogger("library").warning("%s will be removed", "logs")
def quiet(): logging.getLogger("library").warning("five of six")
"""
BETWEEN = "import library\ndef {name}(): library.{name}()\n"
CASES = {
    "we warn by a library": ("rag_experiments/own.py", "import library\nlibrary.warns()", False),
    "we make it log": ("rag_experiments/own.py", "import library\nlibrary.logs()", False),
    "it says something else": ("rag_experiments/own.py", "import library\nlibrary.quiet()", True),
    "we call it by a forwarder": (
        "rag_experiments/own.py",
        "from torch.utils import _contextlib as f\nf.warns()",
        False,
    ),
    "another library's call": ("rag_experiments/own.py", "import between\nbetween.warns()", True),
}


@pytest.mark.parametrize("case", CASES)
def test_the_plugin_blames_the_caller(case, tmp_path):
    file, code, passes = CASES[case]
    own = tmp_path / file
    own.parent.mkdir()
    (own.parent / "__init__.py").touch()
    own.write_text(code)
    (tmp_path / "library.py").write_text(LIBRARY)
    (tmp_path / "between.py").write_text(BETWEEN.format(name="warns"))
    forwarder = tmp_path / "torch" / "utils" / "_contextlib.py"
    forwarder.parent.mkdir(parents=True)
    (tmp_path / "torch" / "__init__.py").touch()
    forwarder.write_text(BETWEEN.format(name="warns"))
    (tmp_path / "deprecations.py").write_text((Path(__file__).parents[1] / "deprecations.py").read_text())
    (tmp_path / "test_it.py").write_text("def test_it():\n    import rag_experiments.own\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "deprecations", "-p", "no:cacheprovider", "test_it.py"]
    alone = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # the other plugins take most of the time
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=alone)
    assert (done.returncode == 0) is passes, done.stdout + done.stderr
    assert ("library will not take for ever" in done.stdout) is not passes

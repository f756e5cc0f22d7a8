"""`import rag_experiments` is quick and whole; its names, their types and the console scripts are there."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import rag_experiments

ROOT = Path(__file__).parents[2]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
HEAVY = {"torch", "transformers", "pandas", "numpy", "hydra", "omegaconf", "datasets", "matplotlib", "wandb"}


def printed(code: str) -> object:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, json, rag_experiments as rag; dir(rag); print(json.dumps(sorted(sys.modules)))"
    names = set(printed(code))
    assert not names & HEAVY
    assert {name for name in names if name.startswith("rag_experiments")} == {"rag_experiments"}


@pytest.mark.parametrize("name", sorted(rag_experiments.__all__))
def test_a_name_needs_no_torch_before_it_is_used(name):
    code = f"import sys, json, rag_experiments as rag; rag.{name}; print(json.dumps('torch' in sys.modules))"
    assert printed(code) is False


@pytest.mark.parametrize("name", ["train", "compare"])
def test_a_commands_module_is_called_as_the_function_whoever_imported_it_first(name):
    first = {
        "the package": f"rag.{name}",
        "the module": f"import rag_experiments.{name}",
        "from": f"from rag_experiments import {name}",
        "another": "import rag_experiments.sweeps.execute, rag_experiments.api.launch",
    }
    for line in first.values():
        code = f"""
import inspect, json
import rag_experiments as rag
{line}
import rag_experiments.api.launch as launch
assert inspect.signature(rag.{name}) == inspect.signature(launch.{name})
assert callable(rag.{name}) and rag.{name}.start and rag.{name}.main
try:
    rag.{name}("nowhere/at-all")
except rag.RequestError as error:
    print(json.dumps(str(error)))
"""
        assert "nowhere/at-all" in printed(code)


def test_a_name_that_there_is_not_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        rag_experiments.trian  # noqa: B018


def test_the_stub_has_the_names_that_there_are():
    tree = ast.parse((ROOT / "rag_experiments" / "__init__.pyi").read_text(encoding="utf-8"))
    stated = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            stated |= {alias.asname: (node.module, alias.name) for alias in node.names}
    assert set(stated) == set(rag_experiments.__all__) <= set(dir(rag_experiments))
    for name, (module, original) in stated.items():
        found = getattr(import_module(module), original)
        offered = getattr(rag_experiments, name)
        assert offered is found or offered is import_module(f"rag_experiments.{name}"), name


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_every_console_script_shows_its_help(script):
    module, _, function = SCRIPTS[script].partition(":")
    code = f"import sys; sys.argv = [{script!r}, '--help']; import {module} as command; command.{function}()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert script in done.stdout or module in done.stdout


def test_there_is_a_script_for_each_command():
    commands = {"train", "evaluate", "compare", "ask", "export", "data", "dashboard"}
    assert {f"rag-{name}" for name in commands} == set(SCRIPTS)

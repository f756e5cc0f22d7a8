"""What happens inside a forked process: pytest on chosen tests, watched."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

CONTEXT = "RAG_MUTANTS_CONTEXT"
OPTIONS = [
    *("-q", "--no-header", "--tb=line", "-W", "ignore", "--hypothesis-profile=mutants"),
    *("-m", "not real and not long and not browser"),
    *(
        part
        for plugin in ("cacheprovider", "xdist", "pytest_cov", "random_order", "timeout")
        for part in ("-p", f"no:{plugin}")
    ),
]


class Chosen:
    """Runs the named tests only, in the order of their names, and says which failed first."""

    def __init__(self, names: list[str]) -> None:
        self.rank = {name: index for index, name in enumerate(names)}
        self.failed: str | None = None
        self.seconds: dict[str, float] = defaultdict(float)
        self.broken: set[str] = set()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item], config: pytest.Config) -> None:
        if self.rank:
            items[:] = sorted((item for item in items if item.nodeid in self.rank), key=lambda i: self.rank[i.nodeid])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration
        if report.failed:
            self.failed = self.failed or report.nodeid
            self.broken.add(report.nodeid)


class Watched:
    """Notes which test reaches which line, which shared fixtures it uses, whether it starts a process."""

    def __init__(self, coverage: Any) -> None:
        self.coverage = coverage
        self.context = ""
        self.tests: dict[str, list[str]] = {}
        self.starts: set[str] = set()
        self.held: list[str] = []
        sys.addaudithook(self._audit)

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if self.context and (
            event == "os.fork" or (event == "subprocess.Popen" and "python" in f"{args[0]} {args[1]}".lower())
        ):
            self.starts.add(self.context)

    def _switch(self, context: str) -> None:
        self.context = context
        os.environ[CONTEXT] = context
        self.coverage.switch_context(context)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._switch(nodeid)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._switch("")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            shared = []
            for name, found in getattr(item, "_fixtureinfo", None).name2fixturedefs.items():  # type: ignore[union-attr]
                shared += [_fixture(name, one) for one in found if one.scope != "function"]
            self.tests[item.nodeid] = shared

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Any:
        if fixturedef.scope == "function":
            yield
            return
        self.held.append(self.context)
        self._switch(_fixture(fixturedef.argname, fixturedef))
        yield
        self._switch(self.held.pop())


def _fixture(name: str, definition: Any) -> str:
    return f"fixture {definition.baseid}::{name}"


def _enter(root: Path, log: Path, temporary: Path) -> None:
    """This process belongs to the copy at `root` from here on."""
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(written, 1)
    os.dup2(written, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(root)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(root), str(root / "tests" / "mutants" / "site")])
    os.environ["TMPDIR"] = str(temporary)
    import tempfile

    tempfile.tempdir = None
    sys.path[:] = [str(root), *(path for path in sys.path if path not in ("", str(root)) and not _ours(path))]
    for name in [name for name in sys.modules if name.split(".")[0] in ("rag_experiments", "tests", "hydra_plugins")]:
        del sys.modules[name]
    sys.path_importer_cache.clear()
    from hypothesis import Phase, settings

    # A failing example is enough: it is not made small, and none is kept for next time.
    settings.register_profile("mutants", phases=[Phase.explicit, Phase.generate], deadline=None, database=None)


def _ours(path: str) -> bool:
    return Path(path, "rag_experiments", "__init__.py").exists()


def measure(root: Path, tests: list[str], answer: Path, log: Path, temporary: Path) -> None:
    """Run whole files once under coverage and write down who reaches what."""
    _enter(root, log, temporary)
    import coverage

    parts = temporary / "coverage"
    parts.mkdir()
    settings = temporary / "coveragerc"
    include = str(root / "rag_experiments" / "*")
    settings.write_text(
        f"[run]\ninclude = {include}\nparallel = true\nsigterm = true\n"
        f"data_file = {parts}/part\ncontext = ${{{CONTEXT}}}\n"
    )
    os.environ["COVERAGE_PROCESS_START"] = str(settings)
    watched_lines = coverage.Coverage(data_file=None, include=[include], config_file=False)
    watched_lines.start()
    watched, chosen = Watched(watched_lines), Chosen([])
    started = time.monotonic()
    code = int(pytest.main([*OPTIONS, f"--basetemp={temporary / 'pytest'}", *tests], plugins=[watched, chosen]))
    watched_lines.stop()
    del os.environ["COVERAGE_PROCESS_START"]
    data = watched_lines.get_data()
    if any(parts.iterdir()):
        other = coverage.Coverage(data_file=str(parts / "part"), config_file=False)
        other.combine([str(parts)], keep=False)
        data.update(other.get_data())
    reached: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for file in data.measured_files():
        module = os.path.relpath(file, root)
        for line, contexts in data.contexts_by_lineno(file).items():
            for context in contexts:
                reached[context][module].append(line)
    told = {
        "code": code,
        "tests": watched.tests,
        "seconds": chosen.seconds,
        "broken": sorted(chosen.broken),
        "starts": sorted(watched.starts),
        "reached": reached,
        "took": time.monotonic() - started,
        "imported": _third_party(root),
    }
    answer.write_text(json.dumps(told))
    os._exit(0)


def check(root: Path, names: list[str], answer: Path, log: Path, temporary: Path) -> None:
    """Run the named tests until the first fails."""
    _enter(root, log, temporary)
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    chosen = Chosen(names)
    files = list(dict.fromkeys(name.split("::")[0] for name in names))
    code = int(pytest.main([*OPTIONS, "-x", f"--basetemp={temporary / 'pytest'}", *files], plugins=[chosen]))
    answer.write_text(json.dumps({"code": code, "failed": chosen.failed, "seconds": chosen.seconds}))
    os._exit(0)


def _third_party(root: Path) -> list[str]:
    """What a next process can have imported already: everything that is not the repository's."""
    found = []
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in ("rag_experiments", "tests", "hydra_plugins", "__main__", "conftest"):
            continue
        file = getattr(module, "__file__", None)
        if file and not file.startswith(str(root)) and file.endswith((".py", ".so")):
            found.append(name)
    return found

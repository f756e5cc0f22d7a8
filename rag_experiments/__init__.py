"""Train and compare the two halves of a retrieval-augmented QA system from one command line, or from Python.

    import rag_experiments as rag
    run = rag.train("algorithm=ctl", "data=pydocs", "trainer=quick")
    run.ask("question"), rag.compare([run, other], metric="recall@4", baseline=other)

What stands here is imported when it is asked for, so that this import is quick. `__init__.pyi` tells type checkers.
"""

from importlib import import_module
from typing import Any

__version__ = "0.2.0"

_OFFERED = {
    "Reply": "ask:Reply",
    "RequestError": "core.errors:RequestError",
    "Run": "api.opened_run:Run",
    "RunFailed": "api.launch:RunFailed",
    "Turn": "data.records:Turn",
    "check_data": "api.launch:check_data",
    "compare": "compare",  # the command's module, which can be called
    "open_run": "api.opened_run:open_run",
    "plan": "api.launch:plan",
    "train": "train",  # likewise
}
__all__ = list(_OFFERED)


def __getattr__(name: str) -> Any:
    if name not in _OFFERED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module_name, _, attribute = _OFFERED[name].partition(":")
    module = import_module(f"{__name__}.{module_name}")
    return getattr(module, attribute) if attribute else module


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

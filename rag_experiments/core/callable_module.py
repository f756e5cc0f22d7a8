"""A module that can be called, for names that are a command's module and a function of the package: `rag.train(…)`.

`python -m rag_experiments.train` fixes the module's name, and importing it puts the module under that name in the
package, whatever stood there. So the module itself answers a call.
"""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from types import ModuleType
from typing import Any


def let_call(name: str, target: str) -> None:
    """Let a call of the module `name` go to `target` (`package.module:function`), which is imported then."""

    def function() -> Any:
        module, _, attribute = target.partition(":")
        return getattr(import_module(module), attribute)

    class CallableModule(ModuleType):
        """A module whose call is a function of another."""

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return function()(*args, **kwargs)

        @property
        def __signature__(self) -> inspect.Signature:
            return inspect.signature(function())

    sys.modules[name].__class__ = CallableModule

"""`python -m rag_experiments.dashboard <dirs…> [--port P]`: serve the dashboard on 127.0.0.1 until Ctrl-C."""

from __future__ import annotations

import argparse
import errno
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from rag_experiments.config.command_line import DONE, exit_with
from rag_experiments.core.errors import RequestError
from rag_experiments.core.visible import say

HOST = "127.0.0.1"
PORT = 8050


class Parser(argparse.ArgumentParser):
    """Prints errors like the other commands."""

    def error(self, message: str) -> NoReturn:
        raise RequestError(f"{message} (see --help)")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parse = Parser(prog="rag-dashboard", description=__doc__.partition(":")[2].strip().capitalize())
    parse.add_argument("dirs", nargs="+", metavar="DIR", help="directories with runs in them, at any depth")
    parse.add_argument("--port", type=int, default=PORT, help=f"default {PORT}; 0 takes any that is free")
    return parse


def listen(port: int) -> socket.socket:
    """A socket bound to 127.0.0.1. It is opened first, so that a port in use is reported before runs are read.

    Raises:
        RequestError: the port is in use, not allowed, or not a port.
    """
    if not 0 <= port <= 65535:
        raise RequestError(f"--port {port} is not a port: give a number from 1024 to 65535, or 0 for any that is free")
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((HOST, port))
        bound.listen(128)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            sentence = f"--port {port} is in use by another program: give another, or 0 for any that is free"
            raise RequestError(sentence) from error
        raise RequestError(f"--port {port} cannot be listened on: {error.strerror}") from error
    return bound


def serve(arguments: Sequence[str]) -> int:
    """Check the request, read the runs once, and serve until interrupted."""
    import uvicorn

    from rag_experiments.dashboard.app import create_app
    from rag_experiments.dashboard.shared.watch import Watch

    options = parser().parse_args(arguments)
    watch = Watch(options.dirs)
    with listen(options.port) as bound:
        started = time.monotonic()
        count = len(watch.look())
        runs = f"{count} run{'' if count == 1 else 's'}, read in {time.monotonic() - started:.1f} s"
        say(f"http://{HOST}:{bound.getsockname()[1]}/  ({runs}; Ctrl-C ends)", flush=True)
        threading.Thread(target=warm_up, daemon=True).start()
        config = uvicorn.Config(create_app(watch), log_level="warning", lifespan="off", server_header=False)
        with suppress(KeyboardInterrupt):  # Ctrl-C is the normal end
            uvicorn.Server(config).run(sockets=[bound])
    return DONE


def warm_up() -> None:
    """Make one figure early: Plotly imports a hundred modules at its first figure, which would delay a page."""
    from rag_experiments.comparison.output.figure_style import base

    base("").add_scatter(x=[0], y=[0]).to_json()


def main() -> NoReturn:
    """The console script."""
    exit_with(serve)


if __name__ == "__main__":
    main()

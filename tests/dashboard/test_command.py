"""The command line: one sentence and status 2 for a wrong request, an address for a right one, and no torch."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests import warm
from tests.dashboard import synthetic


def run(*arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rag_experiments.dashboard", *arguments]
    return warm.run(command, source_name="light", timeout=timeout)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "the following arguments are required: DIR"),
        (["{}/nowhere"], "nowhere: there is no such directory"),
        (["{}", "--port", "abc"], "argument --port: invalid int value: 'abc'"),
        (["{}", "--port", "99999"], "--port 99999 is not a port"),
        (["{}", "--prot", "1"], "unrecognized arguments: --prot"),
    ],
)
def test_a_wrong_request(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    found = run(*(argument.format(tmp_path) for argument in arguments))
    assert found.returncode == 2
    assert sentence in found.stderr
    assert len(found.stderr.splitlines()) == 1
    assert "Traceback" not in found.stderr


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = run(str(tmp_path), "--port", str(port))
    assert found.returncode == 2
    assert found.stderr == (
        f"error: --port {port} is in use by another program: give another, or 0 for any that is free\n"
    )


def test_it_says_where_it_is_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    synthetic.write_run(tmp_path / "runs" / "a", synthetic.config(), questions=2)
    environment = {**os.environ, "RAG_EXPERIMENTS_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "rag_experiments.dashboard", str(tmp_path / "runs"), "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            address = re.match(r"http://127\.0\.0\.1:\d+/", line)
            assert address, line
            assert "1 run," in line
            with urllib.request.urlopen(address.group(), timeout=30) as reply:
                assert b"rag_experiments" in reply.read()
            with pytest.raises(OSError, match="refused"):  # on this machine's own address only
                socket.create_connection((own_address(), int(address.group().split(":")[-1].strip("/"))), timeout=5)
        finally:
            server.send_signal(signal.SIGINT)
        assert server.wait(timeout=30) == 0
        assert server.stderr is not None
        assert server.stderr.read() == ""


def own_address() -> str:
    """An address of this machine's that is not 127.0.0.1; the loopback's second where it has no other."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
            return probe.getsockname()[0]
        except OSError:
            return "127.0.0.2"


def test_no_page_imports_torch(tmp_path: Path) -> None:
    """Nor W&B, nor a tokenizer: the dashboard starts in about a second."""
    synthetic.write_run(
        tmp_path / "runs" / "a",
        synthetic.config(),
        questions=2,
        corpus_hash=synthetic.write_corpus(tmp_path / "cache", 5),
    )
    code = f"""
import sys
from rag_experiments.dashboard.shared.address import View
from rag_experiments.dashboard.app import PAGES, make_templates
from rag_experiments.dashboard.shared.watch import Watch
watch = Watch([{str(tmp_path / "runs")!r}], __import__("pathlib").Path({str(tmp_path / "cache")!r}))
for name, page in PAGES.items():
    view = View.read(name, page.DEFAULTS, [])
    shared = {{"view": view, "watch": watch, "stamp": "", "problem": None}}
    make_templates().get_template(name + ".html").render(shared | page.context(watch, view))
print([name for name in ("torch", "transformers", "wandb", "faiss") if name in sys.modules])
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout == "[]\n"

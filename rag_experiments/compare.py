"""Compare runs from their directories: `python -m rag_experiments.compare outputs --baseline outputs/ctl/…`.

Reads files only: no torch, no W&B (but for `--wandb-report`), no network.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rag_experiments.core.callable_module import let_call
from rag_experiments.core.errors import RequestError
from rag_experiments.core.outcome import DONE
from rag_experiments.core.visible import say

if TYPE_CHECKING:
    from rag_experiments.comparison.output.render import Document

EPILOG = """\
examples:
  rag-compare outputs                                   every run, best first
  rag-compare outputs --where "algorithm=ctl and trainer.learning_rate<1e-4" --metric recall@1
  rag-compare RUN_A RUN_B --baseline RUN_A              which is better, by how much, is it noise
  rag-compare RUN                                       one run: before and after training
  rag-compare outputs --pivot algorithm data            a matrix
  rag-compare outputs --baseline RUN_A --output report.html
  rag-compare outputs --baseline RUN_A --figures paper/figures
"""
_BY_SUFFIX = {".csv": "csv", ".md": "markdown", ".tex": "latex", ".json": "json", ".html": "html", ".htm": "html"}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise RequestError(f"{message} (rag-compare --help shows the options)")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = _Parser(
        prog="rag-compare",
        description="Compare runs from their directories, at any depth below the ones given.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    p.add_argument("directories", nargs="+", metavar="DIR", help="run directories, or folders that hold some")
    p.add_argument("--metric", metavar="M", help="what to rank by and test, such as recall@1 or test/f1; several: a,b")
    p.add_argument(
        "--baseline", metavar="DIR", help="the run (or the folder with its seeds) that all others are compared with"
    )
    p.add_argument("--format", choices=["table", "csv", "markdown", "latex", "json", "html"], help="default: table")
    p.add_argument("--output", metavar="FILE", help="write to FILE; without --format, its ending chooses the format")
    p.add_argument("--where", metavar="EXPR", help='only these runs, such as "algorithm=ctl and seed in [0, 1]"')
    p.add_argument("--pivot", nargs=2, metavar=("A", "B"), help="also a matrix of the metric by two keys")
    p.add_argument("--ungrouped", action="store_true", help="one row per seed")
    p.add_argument("--figures", metavar="DIR", help="also draw the figures into DIR, each as pdf, png and svg")
    p.add_argument(
        "--wandb-report", action="store_true", help="also make a W&B report; offline, print what it would hold"
    )
    return p


def main() -> None:
    """The console script and `python -m`."""
    from rag_experiments.config.command_line import exit_with

    exit_with(start)


def start(arguments: Sequence[str]) -> int:
    """From the typed arguments to an exit status."""
    try:
        args = parser().parse_args(arguments)
    except SystemExit as leaving:  # --help
        return int(leaving.code or DONE)
    form = args.format or _BY_SUFFIX.get(Path(args.output).suffix if args.output else "", "table")
    if form == "html" and not args.output:
        raise RequestError("--format html needs --output FILE")
    if args.figures and Path(args.figures).exists() and not Path(args.figures).is_dir():
        raise RequestError(f"--figures {args.figures}: is a file; name a folder")
    document = make_document(args)
    if args.figures:
        from rag_experiments.comparison.output.paper_figures import write_figures

        names = write_figures(document, Path(args.figures))
        say(f"written to {args.figures}: {', '.join(names)}", file=sys.stderr)
    _write(document, form, args.output)
    if args.wandb_report:
        from rag_experiments.comparison.output.wandb_report import make_report

        say(make_report(document), file=sys.stderr)
    return DONE


def make_document(args: argparse.Namespace) -> Document:
    """`document_of` for what was typed."""
    metrics = [name.strip() for name in args.metric.split(",")] if args.metric else []
    return document_of(
        args.directories,
        metrics,
        baseline=args.baseline,
        where=args.where,
        pivot=tuple(args.pivot) if args.pivot else None,
        grouped=not args.ungrouped,
    )


def document_of(
    directories: Sequence[str],
    metrics: Sequence[str] = (),
    *,
    baseline: str | None = None,
    where: str | None = None,
    pivot: tuple[str, str] | None = None,
    grouped: bool = True,
) -> Document:
    """Load, filter, arrange, judge.

    Raises:
        RequestError: a directory, a name or an expression that cannot be used.
    """
    from rag_experiments.comparison.analysis.before_after import baselines_of, before_after
    from rag_experiments.comparison.analysis.table import RunTable
    from rag_experiments.comparison.analysis.verdict import judge
    from rag_experiments.comparison.output.render import Document
    from rag_experiments.comparison.records.run_records import load_runs
    from rag_experiments.comparison.records.sweep_gaps import gaps
    from rag_experiments.comparison.records.where import filter_runs

    if baseline and not Path(baseline).exists():
        raise RequestError(f"--baseline {baseline}: there is no such directory")
    runs = load_runs([*directories, *([baseline] if baseline else [])])
    notes = gaps(runs, directories)
    if where is not None:
        matches = filter_runs(runs, where)
        if not matches:
            raise RequestError(f"--where {where!r}: none of the {len(runs)} runs satisfies it")
        if len(matches) < len(runs):
            notes.append(f"{len(matches)} of {len(runs)} runs (--where {where}).")
        runs = matches
    table = RunTable(runs, metrics[0] if metrics else None, grouped=grouped)
    if len(metrics) > 1:
        table = RunTable(runs, metrics[0], metrics, grouped=grouped)
    if pivot and table.metric is None:
        raise RequestError("--pivot: none of these runs has finished, so there is no figure to show")
    tested = [name for name in table.metrics or [] if len(metrics) > 1] or None
    single = runs[0] if len(runs) == 1 and not runs[0].problem else None
    return Document(
        table=table,
        comparison=judge(table, baseline, tested) if baseline else None,
        pivot=pivot,
        changes=before_after(single) if single else None,
        beside=[before_after(single, baseline=name) for name in baselines_of(single)] if single else [],
        notes=notes,
    )


def _write(document: Document, form: str, output: str | None) -> None:
    from rag_experiments.comparison.output.render import render
    from rag_experiments.core import text_table
    from rag_experiments.core.files import atomic_write_bytes

    if form == "table" and output is None:
        text_table.show(document.all_grids())
        return
    if form == "html":
        from rag_experiments.comparison.output.html_report import html_report

        text = html_report(document)
    else:
        text = render(document, form)
    if output is None:
        say(text)  # piped or not: who wants the bytes of a csv as they are names a file
        return
    try:
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        atomic_write_bytes(Path(output), (text + "\n").encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise RequestError(f"--output {output}: cannot be written ({error.strerror or error})") from error
    say(f"written to {output}", file=sys.stderr)


if __name__ == "__main__":
    main()
else:
    let_call(__name__, "rag_experiments.api.launch:compare")

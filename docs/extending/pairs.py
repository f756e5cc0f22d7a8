"""A data format: one text file of lines `question <tab> answer <tab> passage`; equal passages are one passage."""

from dataclasses import dataclass

from rag_experiments.config.schema import DataConfig
from rag_experiments.data.formats.format_files import files_fingerprint
from rag_experiments.data.formats.lines import data_path, text_lines
from rag_experiments.data.records import Question
from rag_experiments.data.row_fields import BadRow, content_id


@dataclass(kw_only=True)
class PairsConfig(DataConfig):
    """`data.path` is the file."""

    format: str = "pairs"


def fingerprint(config):
    """Changes whenever the file does."""
    return files_fingerprint([data_path(config.path, config.format, folder=False)])


def read(config, intake):
    """Hand every passage and question to the intake; what is wrong with a line is reported with its number."""
    path = data_path(config.path, config.format, folder=False)
    intake.split("train", str(path))
    for where, line in text_lines(path, intake):
        with intake.row(where):
            fields = line.split("\t")
            if len(fields) != 3:
                raise BadRow(f"a line needs a question, an answer and a passage, and this one has {len(fields)} fields")
            question, answer, passage = fields
            key = content_id(passage)
            intake.passage(key, passage, repeatable=True, place=intake.place())
            intake.question(
                "train", Question(id=f"q{where.line}", question=question, answers=(answer,), positive_ids=(key,))
            )

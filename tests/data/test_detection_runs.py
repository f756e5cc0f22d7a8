"""`data=auto` in a configuration: what it becomes, how a run is opened again, what is said of columns."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
from huggingface_hub import HfApi, constants, errors
from omegaconf import OmegaConf

from rag_experiments import train
from rag_experiments.config import command_line
from rag_experiments.config.data_formats import config_class
from rag_experiments.core.errors import RequestError
from rag_experiments.data import check
from rag_experiments.data.column_report import ColumnReport
from rag_experiments.data.formats import hub_access
from rag_experiments.data.formats.hub import HubColumns, HubConfig
from rag_experiments.data.formats.tevatron import TevatronConfig
from rag_experiments.data.load import check_required_fields, load_data
from rag_experiments.data.shown_examples import example_lines
from rag_experiments.training import resume
from rag_experiments.training.checks import check_common
from tests.data.shapes_of_files import COUNT, SHAPES, lines, question, table, text
from tests.training.test_resume_rules import begun

HEADER = ("ID", "Question", "Answer", "Context")
CELLS = lambda n: (n, question(n), f"d{n}", text(n))  # noqa: E731


@pytest.fixture
def sheet(tmp_path):
    return table("a.csv", HEADER, CELLS)(tmp_path)


def composed(*overrides: str):
    return command_line.compose(command_line.parse(list(overrides)).overrides)


def run_check(arguments, tmp_path, capsys) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        command_line.exit_with(check.start, [*arguments, f"paths.cache={tmp_path / 'cache'}"])
    return (ended.value.code, *capsys.readouterr())


# -- one configuration -----------------------------------------------------------------------------


def test_several_ways_to_say_it_are_one_configuration(sheet):
    typed = [f"data.columns.{key}={name}" for key, name in
             (("question", "Question"), ("answers", "Answer"), ("context", "Context"), ("id", "ID"))]  # fmt: skip
    ways = [
        [f"data.path={sheet}"], ["data=auto", f"data.path={sheet}"], [f"data={sheet}"],
        ["data=csv", f"data.path={sheet}"], ["data=hub", f"data.path={sheet}", *typed],
        [f"data.path={sheet}", "data.columns.answers=Answer"],
    ]  # fmt: skip
    made = [composed(*way) for way in ways]
    assert len({resume.composed_hash(one) for one in made}) == 1
    assert {one.data.format for one in made} == {"hub"}
    assert {one.hydra.runtime.choices.data for one in made} == {"hub"}
    assert check_common(made[0])[1]["data"]["columns"]["question"] == "Question"


def test_a_format_that_is_named_is_not_looked_for(sheet, tmp_path):
    assert composed("data=dpr", f"data.path={sheet}").data.format == "dpr"
    assert composed("data=jsonl", f"data.path={tmp_path / 'nowhere'}").data.path == str(tmp_path / "nowhere")
    assert composed().data.format == "pydocs"
    assert composed("data=pydocs", f"data.path={sheet}").data.format == "pydocs"
    keyvalue = composed("experiment=fid_keyvalue", f"data.path={sheet}")
    assert keyvalue.data.format == "keyvalue", "an experiment chose"


def test_a_path_that_is_missing_is_asked_for():
    with pytest.raises(RequestError, match=r"data\.path has no value"):
        check_common(composed("data=auto"))
    with pytest.raises(RequestError, match="there is no such file or folder"):
        composed("data=auto", "data.path=/no/such/file.csv")


def test_keys_of_the_format_can_be_typed(sheet):
    data = composed(f"data.path={sheet}", "data.passage_words=50", "data.max_train=4", "data.columns.title=null").data
    assert (data.passage_words, data.max_train, data.columns.title) == (50, 4, None)
    with pytest.raises(RequestError, match=r"data\.chunk_tokens is an unknown key"):
        check_common(composed(f"data.path={sheet}", "data.chunk_tokens=50"))


def test_jobs_of_a_sweep_are_looked_at_one_by_one(sheet, tmp_path):
    other = lines("b.jsonl", lambda n: {"query": question(n), "pos": [text(n)]})(tmp_path)
    formats = [composed(f"data.path={path}").data.format for path in (sheet, other)]
    assert formats == ["hub", "tevatron"]


# -- runs ------------------------------------------------------------------------------------------


def test_a_run_goes_on_with_what_was_found_when_it_began(sheet, tmp_path):
    overrides = ["algorithm=ctl", f"data.path={sheet}", "data=auto", "data.max_dev=3", "tracking=none"]
    run = begun(tmp_path / "run", overrides)
    first = check_common(command_line.compose(overrides))[1]
    (run / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(first)))
    table("a.csv", ("query", "passage"), lambda n: (question(n), text(n)))(tmp_path)  # another file in its place
    stored = resume.stored_overrides(run)
    assert "data=hub" in stored
    assert "data=auto" not in stored
    assert check_common(command_line.compose(stored))[1]["data"] == first["data"]
    assert resume.resolve([f"resume={run}"], None).directory == run
    sheet.unlink()
    assert check_common(command_line.compose(resume.stored_overrides(run)))[1]["data"] == first["data"]
    assert resume.stored_overrides(run, settled=False) == overrides


def test_a_run_without_its_configuration_is_looked_at_again(sheet, tmp_path):
    overrides = ["algorithm=ctl", f"data.path={sheet}", "data=auto", "tracking=none"]
    assert resume.stored_overrides(begun(tmp_path / "run", overrides)) == overrides


def test_the_overrides_that_hydra_stores_name_auto(sheet):
    """So that a run that was typed with the path alone is known for one whose data was found."""
    assert list(composed(f"data.path={sheet}").hydra.overrides.task)[-1] == "data=auto"


@pytest.mark.parametrize(
    ("name", "algorithm"),
    [
        ("CSV with capitals", "ctl"), ("FlagEmbedding", "ctl"), ("sentence-transformers", "ctl"), ("BEIR", "ctl"),
        ("HotpotQA", "ctl"), ("Alpaca", "sft"), ("ragas", "sft"), ("SQuAD", "sft"),
    ],
)  # fmt: skip
def test_a_plan_by_the_path_alone(name, algorithm, tmp_path, tiny_bert, tiny_llama, capsys):
    path = SHAPES[name].write(tmp_path)
    model = tiny_bert if algorithm == "ctl" else tiny_llama
    more = [] if algorithm == "ctl" else ["retriever=bm25"]
    words = [f"algorithm={algorithm}", f"data.path={path}", "plan=true", f"model={model}", "tracking=none", *more]
    words += [f"paths.cache={tmp_path / 'cache'}", f"hydra.run.dir={tmp_path / 'run'}", "retriever.k=2"]
    assert train.start([*words, "trainer.use_cpu=true"]) == command_line.DONE
    out = capsys.readouterr().out
    assert out.count("\nexample ") == 3
    assert "question 'Where is thing" in out
    if name == "CSV with capitals":
        assert "columns read: question from 'Question', id from 'ID', answers from 'Answer'" in out


# -- what is said of columns -----------------------------------------------------------------------


def test_check_takes_the_path_alone_and_shows_what_was_taken_for_what(sheet, tmp_path, capsys):
    status, out, _ = run_check([str(sheet)], tmp_path, capsys)
    assert status == 0
    assert "columns read: question from 'Question', id from 'ID', answers from 'Answer', context from 'Context'" in out
    assert out.count("\n  query     Where is thing") == 3
    assert "0 without an answer" in out
    status, _, err = run_check([str(sheet), f"data.path={sheet}"], tmp_path, capsys)
    assert (status, "check takes one path" in err) == (2, True)


@pytest.mark.parametrize("long", [False, True])
def test_a_column_under_another_name_is_pointed_at(long, tmp_path, capsys):
    """With short contexts every row can be used; a long one is left out where no answer says which part is gold."""
    cells = lambda n: (question(n), f"d{n}", text(n) + " word" * (300 if long and n % 2 else 0))  # noqa: E731
    path = table("a.csv", ("question", "answer", "context"), cells)(tmp_path)
    status, out, err = run_check(["data=hub", f"data.path={path}"], tmp_path, capsys)
    assert "no row has a column 'answers'" in out
    assert "data.columns.answers=answer reads 'answer'" in out
    assert status == (2 if long else 0)
    assert "--fix" not in err
    status, out, _ = run_check(["data=hub", f"data.path={path}", "data.columns.answers=null"], tmp_path, capsys)
    assert (status, "no row has" in out) == (0, False)


@pytest.mark.parametrize("key", ["answers", "title", "negatives", "history", "group", "id"])
def test_a_column_that_is_named_and_nowhere_is_refused(key, sheet, tmp_path):
    columns = HubColumns(question="Question", context="Context", **{key: "nowhere"})
    with pytest.raises(RequestError, match=rf"data\.columns\.{key}=nowhere: no row has such a column"):
        load_data(HubConfig(path=str(sheet), columns=columns), tmp_path / "cache")


@pytest.mark.parametrize(("key", "other"), [("question", "Question"), ("context", "Context")])
def test_the_advice_for_a_missing_column_is_its_name_and_not_to_leave_all_rows_out(key, other, sheet, tmp_path):
    columns = HubColumns(**{"question": "Question", "context": "Context", key: key})
    with pytest.raises(RequestError, match=rf"data\.columns\.{key}={other} names it") as refused:
        load_data(HubConfig(path=str(sheet), columns=columns), tmp_path / "cache")
    assert "--fix" not in str(refused.value)


def test_where_no_question_has_what_an_algorithm_needs_its_column_is_asked_for(tmp_path):
    path = table("a.csv", ("question", "solution", "context"), lambda n: (question(n), f"d{n}", text(n)))(tmp_path)
    data = load_data(HubConfig(path=str(path)), tmp_path / "cache")
    with pytest.raises(RequestError) as refused:
        check_required_fields(data, ["answers"], "sft")
    assert "columns not used: solution: name the one that holds them with data.columns.answers" in str(refused.value)
    assert "--fix" not in str(refused.value)


ROWS = {
    "localrqa": {"eval_w_qa.jsonl": {"question": "a?", "gold_answer": "d", "gold_docs": [{"page_content": "d"}]}},
    "beir": {
        "queries.jsonl": {"_id": "q", "text": "a?"},
        "corpus.jsonl": {"_id": "c", "text": "the text"},
        "qrels/dev.tsv": "query-id\tcorpus-id\tscore\nq\tc\t1\n",
    },
    "hub": {"dev.jsonl": {"question": "a?", "context": [["T", ["One."]]], "supporting_facts": [["T", 0]]}},
}
"""The files of a format: one row each, and a question's row in the first."""


@pytest.mark.parametrize("name", ROWS)
def test_every_format_of_rows_names_columns_that_are_not_used(name, tmp_path):
    for number, (file, row) in enumerate(ROWS[name].items()):
        path = tmp_path / "set" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(row if isinstance(row, str) else json.dumps({**row, **({} if number else {"colour": "red"})}))
    keys = {"preset": "hotpot"} if name == "hub" else {}
    config = config_class(name)(path=str(tmp_path / "set"), **keys)
    assert "columns not used: colour" in load_data(config, tmp_path / "cache").notes


def test_report_of_columns():
    report = ColumnReport()
    report.expect({"question": "q", "answers": "answers", "title": None, "context": "c.text"}, vars(HubColumns()))
    report.row({"q": 1, "c": {}, "Answer": 2}, {"q", "c"})
    report.row({"q": 1, "more": 3}, {"q", "c"})
    assert list(report.missing()) == []
    assert list(report.notes()) == [
        "columns read: question from 'q', context from 'c.text'",
        "no row has a column 'answers'; data.columns.answers=Answer reads 'Answer'",
        "columns not used: Answer, more",
    ]
    assert list(ColumnReport().notes()) == []


def test_examples_are_one_line_each(tmp_path):
    row = lambda n: {"query": f"{question(n)}\nplease", "positive_passages": [{"text": f"{text(n)} {'long ' * 99}"}]}  # noqa: E731
    data = load_data(TevatronConfig(path=str(lines("a.jsonl", row)(tmp_path))), tmp_path / "cache")
    shown = example_lines(data, 2)
    assert len(shown) == 2
    assert all("\n" not in line and len(line) < 200 for line in shown)
    assert "please" in shown[0]
    assert len(example_lines(data, COUNT)) == len(data.splits["train"])


# -- the hub ---------------------------------------------------------------------------------------


def test_of_a_name_on_the_hub_the_first_rows_are_looked_at(monkeypatch, tmp_path):
    """Nothing is downloaded for the look; a name that is nowhere is refused in the words of `data=hub`."""
    monkeypatch.setattr(hub_access, "_unreachable", lambda *_: "")
    calls = []

    def load_dataset(name, configuration=None, *, revision=None, streaming=False):
        calls.append((name, configuration, revision, streaming))
        rows = [{"query": question(n), "response": f"d{n}", "passage": text(n)} for n in range(COUNT)]
        made = datasets.Dataset.from_list(rows)
        return datasets.IterableDatasetDict({"train": made.to_iterable_dataset()}) if streaming else {"train": made}

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    made = composed("data.path=org/set", "data.revision=abc")
    assert {key: made.data.columns[key] for key in ("question", "answers", "context")} == {
        "question": "query", "answers": "response", "context": "passage",
    }  # fmt: skip
    assert calls
    assert {call[1:] for call in calls} == {(None, "abc", True)}
    assert composed("data=org/set").data.path == "org/set"
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: (_ for _ in ()).throw(ValueError("no such set")))
    with pytest.raises(RequestError, match=r"data\.path=nowhere/set: no file .* not loaded from the hub: no such set"):
        composed("data.path=nowhere/set")


def _answer(kind: type[Exception]) -> Exception:
    """An error of the hub's client."""
    response = SimpleNamespace(headers={}, request=None, url="", status_code=404)
    return kind("not there", response=response) if issubclass(kind, errors.HfHubHTTPError) else kind("not there")


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (
            errors.RepositoryNotFoundError,
            r"data\.path=org/set is neither a file or folder here nor a data set on the hub",
        ),
        (errors.GatedRepoError, r"the hub's 'org/set' is gated: accept its terms there and set HF_TOKEN"),
        (errors.RevisionNotFoundError, r"data\.revision: the hub's 'org/set' has no revision 'abc'"),
        (errors.HFValidationError, r"data\.path=org/set: there is no such file or folder"),
        (OSError, r"no file or folder of that name, and not loaded from the hub: it cannot be reached \(not there\)"),
    ],
)
def test_the_hub_is_asked_once_and_where_it_cannot_be_its_cache_is(kind, sentence, monkeypatch):
    def load_dataset(*_, **__):
        assert kind is OSError, "only a hub that cannot be asked may have been asked before"
        assert datasets.config.HF_HUB_OFFLINE
        assert constants.HF_HUB_OFFLINE
        raise ValueError("not in the cache")

    calls: list[str] = []

    def dataset_info(self, name, **more):
        calls.append(name)
        raise _answer(kind)

    hub_access._unreachable.cache_clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(HfApi, "dataset_info", dataset_info)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(RequestError, match=sentence):
        load_data(HubConfig(path="org/set", revision="abc"), Path("cache"))
    assert calls == ["org/set"]
    assert not constants.HF_HUB_OFFLINE
    hub_access._unreachable.cache_clear()


@pytest.mark.parametrize("name", ["nothere.csv", "notes.md", "rows.jsonl.gz", "a/b/c", "./x", "~/x"])
def test_the_hub_is_not_asked_for_what_is_named_as_a_file(name, monkeypatch, tmp_path):
    (tmp_path / "not_here.csv").write_text("question,answer\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub_access, "_unreachable", lambda *_: pytest.fail("the hub was asked"))
    with pytest.raises(RequestError, match="there is no such file or folder") as refused:
        composed(f"data.path={name}")
    assert ("did you mean 'not_here.csv'?" in str(refused.value)) == (name == "nothere.csv")


def test_a_column_whose_name_is_half_a_character_is_noted_and_not_fatal(tmp_path):
    rows = [
        {"question": f"what is {n}?", "answer": f"a{n}", "context": f"text {n} is a{n}", "\ud800x": 1}
        for n in range(12)
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config, _ = check_common(command_line.compose([f"data.path={file}"]))
    notes = load_data(config.data, tmp_path / "cache").notes
    assert any("columns not used" in note and "\\ud800x" in note for note in notes)

"""What people type is what the run gets, whatever Hydra's grammar makes of it; what is printed can be pasted."""

from __future__ import annotations

import shlex
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_experiments.config import command_line
from rag_experiments.config.overrides import of_value, prepare, quote, split_override, typed, unquote
from rag_experiments.core.errors import RequestError

ODD = [
    *("/home/müller/daten", "数据", "a#b", "it's", 'say "x"', "a,b", "a=b", "[1]", "/tmp/x[1]", "{a: b}", "{a", "(a)"),
    *("a b", " a ", "query: ", "1", "true", "1e5", "-1", "a;b", "<b>", "a&b", "`a`", "C:\\x", "a\\", "run(1)", "~/x"),
    *("'a", "a'", "\"'", "*", "a!b", "é", "\u202e", "null x", "--x", "a:b", "%", "@", "a@b", "$HOME"),
]


def read(override: str) -> object:
    """The value that a run gets at the key `name` of what was typed as `name=…`."""
    return command_line.compose([override]).name


@pytest.mark.parametrize("text", ODD)
def test_a_text_is_taken_as_it_is_typed(text):
    assert read(f"name={text}") == text


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30))
def test_any_text_comes_back_from_what_is_printed(text):
    """`typed` for the shell, `prepare` for Hydra's grammar, whose own parser reads the result."""
    (word,) = shlex.split(typed("resume", text))
    (prepared,) = prepare([word])
    assert split_override(prepared) == ("resume", text)
    from hydra.core.override_parser.overrides_parser import OverridesParser

    assert OverridesParser.create().parse_override(prepared).value() == text
    assert unquote(quote(text)) == text


def test_a_quoted_value_and_an_interpolation_are_left():
    given = ["name='a,b'", 'name="x"', "name=${seed}", "trainer.learning_rate=1e-5", "evaluation.cutoffs=[1,2]"]
    assert prepare(given) == given


@pytest.mark.parametrize(
    ("override", "advice"),
    [
        ("tracking.tags=a,b", "'tracking.tags=[a,b]'"),
        ("evaluation.cutoffs=1,2", "'evaluation.cutoffs=[1,2]'"),
        ("seed=1,2", "add -m"),
        ("model=minilm,e5_base", "add -m"),
        ("trainer.learning_rate=choice(1e-5,2e-5)", "add -m"),
        ("data.columns.answers=a,b", """'data.columns.answers='"'"'a,b'"'"''"""),
    ],
)
def test_several_values_without_a_sweep_are_answered_with_what_works(override, advice):
    with pytest.raises(RequestError) as refused:
        prepare([override])
    assert override in str(refused.value)
    assert advice in str(refused.value)


def test_in_a_sweep_a_comma_parts_values_and_each_is_a_text():
    assert prepare(["seed=1,2", "model=a,b"], multirun=True) == ["seed=1,2", "model=a,b"]
    assert prepare(["data.path=/ü,/o"], multirun=True) == ["data.path='/ü',/o"]
    assert prepare(["name=1,x"], multirun=True) == ["name='1',x"]
    assert prepare(["evaluation.cutoffs=[1],[1,4]"], multirun=True) == ["evaluation.cutoffs=[1],[1,4]"]
    assert prepare(["data.path=it's"], multirun=True) == ["data.path='it\\'s'"]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("ctl", "algorithm=ctl"),
        ("seed", "seed=<value>"),
        ("=5", "no key"),
        ("+=", "no key"),
        ("@b=1", "not the name of a key"),
        ("a..b=1", "not the name of a key"),
        ("müller=1", "not the name of a key"),
        ("+++seed=1", "not the name of a key"),
        ("model=null", "name of one option"),
        ("model=", "name of one option"),
        ("tracking=null", "none, wandb"),
        ("data=[jsonl,beir]", "name of one option"),
    ],
)
def test_a_word_that_is_no_override_is_a_sentence(override, words):
    with pytest.raises(RequestError) as refused:
        prepare([override])
    assert words in str(refused.value)
    assert override.lstrip("+") in str(refused.value)


def test_null_leaves_out_what_a_run_can_do_without():
    assert prepare(["experiment=null", "sweep=null", "seed=1"]) == ["seed=1"]
    assert prepare(["model@retriever.encoder=null"]) == ["~model@retriever.encoder"]
    composed = command_line.compose(["algorithm=sft", "model@retriever.encoder=null", "experiment=null"])
    assert composed.retriever.get("encoder") is None


@pytest.mark.parametrize("override", ["data=1", "model=/some/dir", "trainer=müller", "model=all MiniLM", "data=x.csv"])
def test_an_option_that_there_is_not_is_refused_by_name(override):
    with pytest.raises(RequestError, match="is not one of the"):
        command_line.compose([override])


# -- the command line --------------------------------------------------------------------------------


def test_options_may_stand_between_overrides():
    line = command_line.parse(["seed=1,2", "-m", "name=x"])
    assert (line.overrides, line.multirun) == (["seed=1,2", "name=x"], True)
    assert line.arguments == ["-m", "seed=1,2", "name=x"]
    line = command_line.parse(["--config-dir", "conf", "name=a b", "--cfg", "job"])
    assert line.arguments == ["--config-dir", "conf", "--cfg", "job", "name=a b"]


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["--config-name=x"], "experiment="),
        (["--config-path", "/tmp"], "--config-dir"),
        (["--cfg", "nope"], "--help"),
        (["-c"], "--help"),
        (["--nothing"], "--help"),
        (["--experimental-rerun", "x"], "resume="),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(arguments, advice):
    with pytest.raises(RequestError, match=advice):
        command_line.parse(arguments)


def test_a_name_that_no_file_can_have_is_a_sentence(capsys):
    def asks(arguments: list[str]) -> int:
        command_line.compose([], "x" * 5000)
        return 0

    with pytest.raises(SystemExit) as leaving:
        command_line.exit_with(asks, [])
    assert leaving.value.code == command_line.WRONG_REQUEST
    assert "too long" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["...", "a", "a.", ".a", "1.2", "a b.c", "os.system; x", ""])
def test_a_target_that_is_no_name_is_refused(target):
    from rag_experiments.training.checks import import_algorithm

    with pytest.raises(RequestError, match=r"algorithm\._target_"):
        import_algorithm(target)


def test_a_key_that_was_taken_out_is_said():
    from rag_experiments.training.checks import check_common

    with pytest.raises(RequestError, match=r"seed has no value: leave ~seed out"):
        check_common(command_line.compose(["~seed"]))


def test_a_text_that_must_have_a_form_is_told_it():
    from rag_experiments.training.checks import check_common

    changes = ["algorithm=sft", "data=keyvalue", "model.template_date=yesterday"]
    with pytest.raises(RequestError, match=r"model\.template_date='yesterday': must be a date such as 2024-07-26"):
        check_common(command_line.compose(changes))


@pytest.mark.parametrize("override", ["~algorithm=false", "~algorithm=1", "~tracking=x,y"])
def test_an_option_that_was_not_chosen_cannot_be_taken_out(override):
    with pytest.raises(RequestError, match=override.partition("=")[0].lstrip("~")):
        command_line.compose([override])


def test_a_pattern_that_fits_nothing_is_a_sentence():
    """`glob(…)` is for the options of a group; a key has none."""
    from rag_experiments.sweeps.override_grid import combinations

    override = Mock(input_line="trainer.learning_rate=glob(*)", **{"sweep_string_iterator.return_value": iter(())})
    with pytest.raises(RequestError, match=r"trainer\.learning_rate=glob\(\*\): no option"):
        combinations([override])


@pytest.mark.parametrize("override", ["++algorithm.name=???", "++paths.outputs=???"])
def test_a_run_directory_without_its_parts_is_a_sentence(override):
    """`hydra.run.dir` is made of them."""
    from rag_experiments import train

    with pytest.raises(RequestError, match=r"algorithm\.name|paths\.outputs"):
        train.start(["algorithm=ctl", "data=keyvalue", "plan=true", override])


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "key_b", "c1"]), inner),
    max_leaves=5,
)


@given(VALUES)
def test_a_value_of_pythons_comes_back_as_it_is(value):
    """By Hydra's own reading, in a key of no type and in one that holds a text."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    for key in ("algorithm.anything", *(["data.path"] if isinstance(value, str) else [])):
        (prepared,) = prepare([of_value(key, value)])
        read_back = OverridesParser.create().parse_override(prepared)
        assert not read_back.is_sweep_override()
        assert read_back.value() == value
        assert type(read_back.value()) is type(value)


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", [object()], {"a": {1}}])
def test_a_value_that_no_key_takes_is_refused(value):
    with pytest.raises(RequestError, match=r"model\.x: \w+ is no value of a key"):
        of_value("model.x", value)

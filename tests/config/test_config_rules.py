"""From a composed configuration to a checked one, and what stands in the way."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from rag_experiments.config import command_line, roles, schema
from rag_experiments.config.groups import GROUPS, choices, conf_dir, preset_kinds, without_head
from rag_experiments.config.kinds import MODEL_KINDS
from rag_experiments.core import files
from rag_experiments.core.errors import RequestError
from rag_experiments.runs.identity import config_hash
from rag_experiments.training import checks, request, run

DATA = ["data=jsonl", "data.path=x"]


def composed(*overrides: str):
    return command_line.compose([*DATA, *overrides])


def checked(*overrides: str):
    return checks.check_common(composed(*overrides))


def test_a_checked_configuration_has_types_and_every_default():
    found, resolved = checked("seed=3", "retriever.k=2", "trainer.learning_rate=1e-4")
    assert (found.seed, found.retriever.k, found.trainer["learning_rate"]) == (3, 2, 1e-4)
    assert isinstance(found.retriever, schema.RetrieverConfig)
    assert isinstance(found.model, schema.EncoderConfig)
    assert isinstance(found.data, schema.DataConfig)
    assert isinstance(found.tracking, schema.TrackingConfig)
    assert isinstance(found.evaluation, schema.EvaluationConfig)
    assert isinstance(found.sweep, schema.SweepConfig)
    assert isinstance(found.paths, schema.PathsConfig)
    assert resolved["retriever"]["rrf_k"] == schema.RetrieverConfig().rrf_k
    assert set(GROUPS) <= set(resolved)
    assert not {"hydra", "chain"} & set(resolved)


def test_a_default_that_is_typed_out_is_the_same_run():
    first, second = checked()[1], checked("retriever.rrf_k=60", "data.split_seed=0", "model.append_eos=false")[1]
    assert config_hash(first) == config_hash(second)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.format=jsonll"], r"^data\.format='jsonll' is unknown.*'jsonl'"),
        (["model.load_in_4bit=true"], r"^model\.load_in_4bit is a key of a decoder or encoder_decoder"),
        (["model.lora={r: 4}", "model.init=random"], r"^model\.lora: adapters .* model\.init=random has none"),
        (["model.lora={rank: 4}"], r"^model\.lora\.rank is an unknown key"),
        (["model.kind=x"], r"^model\.kind='x' is not a kind of model"),
        (["retriever.k=0"], r"^retriever\.k=0: "),
        (["evaluation.depht=3"], r"^evaluation\.depht is an unknown key.*'depth'"),
        (["tracking.mode=x"], r"^tracking\.mode='x'"),
        (["sweep.on_error=x"], r"^sweep\.on_error='x'"),
        (["evaluation.baselines=[bm52]"], r"^evaluation\.baselines: 'bm52' is not a retriever.*'bm25'"),
        (["evaluation.baselines=[hybrid]"], r"^evaluation\.baselines: hybrid needs an encoder.*take bm25$"),
        (["paths.cash=x"], r"^paths\.cash is an unknown key.*'cache'"),
        (["trainer.max_steps=0"], r"^trainer\.max_steps=0"),
        (["data.pth=x"], r"^data\.pth is an unknown key.*'path'"),
        (["seed=-1"], r"^seed=-1: "),
        (["seed=x"], r"^seed='x': "),
        (["early_stopping=0"], r"^early_stopping=0: "),
        (["plan=perhaps"], r"^plan='perhaps': "),
        (["paths=3"], r"^paths=3 is no configuration: set its keys, as paths\.<key>=…"),
        (["trainer.metric_for_best_model=f1"], r"^trainer\.metric_for_best_model='f1': .*starts with 'dev/'"),
        (["trainer.metric_for_best_model=test/f1"], "checkpoints are chosen on dev"),
    ],
)
def test_a_wrong_configuration_is_refused_by_key(overrides, message):
    with pytest.raises(RequestError, match=message):
        checked(*overrides)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.path", "???", r"^model\.path has no value: set model\.path=…$"),
        ("name", "${nothing}", "^name: "),
        ("retriever", None, r"^retriever=None is no configuration: choose one of .*faiss_flat"),
        ("paths", None, r"^paths=None is no configuration: set its keys, as paths\.<key>=…"),
    ],
)
def test_a_value_that_is_missing_is_named(key, value, message):
    node = composed()
    OmegaConf.set_readonly(node, False)
    OmegaConf.set_struct(node, False)
    OmegaConf.update(node, key, value, merge=False)
    with pytest.raises(RequestError, match=message):
        checks.check_common(node)


def test_an_encoder_as_a_frozen_reranker_is_answered_with_what_can_be_taken():
    """Not with an encoder below a head that nobody trained, which would be refused next."""
    assert without_head() == {"minilm_reranker"}
    with pytest.raises(
        RequestError, match=r"^retriever\.reranker must be a cross_encoder, but .* an encoder"
    ) as caught:
        checked("model@retriever.reranker=minilm")
    advice = str(caught.value).partition("choose model@retriever.reranker=")[2]
    presets, _, run = advice.partition(", or ")
    assert "minilm_reranker_msmarco" in presets.split("|")
    assert "minilm_reranker" not in presets.split("|")
    assert run.startswith("a run of algorithm=rerank: model@retriever.reranker=run retriever.reranker.path=run://")


def test_no_metric_for_the_best_is_a_choice():
    assert checked("trainer.metric_for_best_model=null")[0].trainer["metric_for_best_model"] is None
    assert checked("trainer.metric_for_best_model=dev/f1")[0].trainer["metric_for_best_model"] == "dev/f1"


def test_hydras_own_node_and_a_chains_plan_are_no_part_of_a_run():
    node = OmegaConf.create({"seed": 1, "hydra": {"x": 1}, "chain": {"y": 2}})
    assert checks.without_hydra(node) == {"seed": 1}


def test_a_models_kind_is_that_of_its_folder(monkeypatch):
    asked = []
    monkeypatch.setattr(checks.sources, "kind_of", lambda path: asked.append(path) or "encoder")
    more = ["model=run", "model.path=run://a", "algorithm=sft", "model@retriever.encoder=run"]
    plain = {"model": {"kind": "auto", "path": "a"}, "other": {"kind": "decoder"}, "seed": 0, "none": None}
    for key in ("model", "other"):
        checks._settle_kind(plain[key], key)
    assert plain["model"]["kind"] == "encoder"
    assert plain["other"]["kind"] == "decoder"
    assert asked == ["a"]
    found = checked(*more, "retriever.encoder.path=run://b", "model.kind=encoder")[0]
    assert found.retriever.encoder.kind == "encoder"
    assert "run://b" in asked


# -- the algorithm -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (None, r"algorithm\._target_=None must name a class"),
        ("CTLTrainer", r"must name a class, such as rag_experiments\.algorithms\.ctl\.CTLTrainer"),
        ("nosuch.module.X", "there is no module nosuch on the Python path"),
        ("rag_experiments.algorithms.nosuch.X", r"there is no module rag_experiments\.algorithms\.nosuch on"),
        ("rag_experiments.algorithms.ctl.Nothing", r"Nothing in rag_experiments\.algorithms\.ctl is no subclass"),
        ("rag_experiments.algorithms.ctl.CTLConfig", "CTLConfig in .* is no subclass"),
        ("rag_experiments.algorithms.ctl.ctl_loss", "ctl_loss in .* is no subclass"),
    ],
)
def test_an_algorithm_that_is_none(target, message):
    with pytest.raises(RequestError, match=message):
        checks.import_algorithm(target)


def test_an_algorithm_from_outside(tmp_path, monkeypatch):
    (tmp_path / "outside_ok.py").write_text(
        "from rag_experiments.algorithms.base import AlgorithmTrainer\nclass Mine(AlgorithmTrainer):\n    trains = ''\n"
    )
    (tmp_path / "outside_broken.py").write_text("import a_package_that_is_missing\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert checks.import_algorithm("outside_ok.Mine").__name__ == "Mine"
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_missing"):
        checks.import_algorithm("outside_broken.Mine")  # a mistake inside is shown whole


def test_checking_an_algorithm_gives_its_class_and_its_values():
    found = checked("algorithm.temperature=0.5")[0]
    trainer_class = checks.check_algorithm(found)
    assert trainer_class.__name__ == "CTLTrainer"
    assert found.algorithm.temperature == 0.5
    assert isinstance(found.algorithm, trainer_class.Config)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=smollm2_135m"], r"^algorithm=ctl trains an encoder, but model\.path=.* is a decoder: choose model="),
        (["algorithm=sft", "model=minilm"], r"^algorithm=sft trains .* is an encoder: choose model=.*smollm2_135m"),
        (["algorithm.temperature=-1"], r"^algorithm\.temperature=-1: "),
        (
            ["model@retriever.encoder=minilm"],
            r"retriever\.encoder is set, but this algorithm trains the retriever's encoder",
        ),
        (["retriever=bm25"], "retriever=bm25 has no encoder, and this algorithm trains one"),
        (
            ["algorithm=sft", "retriever.encoder=null"],
            r"the retriever has no encoder: add model@retriever\.encoder=",
        ),
        (["algorithm=rpg", "algorithm.teacher=null"], "needs a language model that judges"),
    ],
)
def test_an_algorithm_and_the_rest_must_fit(overrides, message):
    with pytest.raises(RequestError, match=message) as caught:
        checks.check_algorithm(checked(*overrides)[0])
    if "trains an encoder" in str(caught.value):
        assert "minilm" in str(caught.value)
        assert "smollm2_360m" not in str(caught.value).split("choose")[1]


def test_a_reader_behind_bm25_needs_no_encoder():
    checks.check_algorithm(checked("algorithm=sft", "retriever=bm25")[0])
    checks.check_algorithm(checked("algorithm=sft", "retriever=bm25", "retriever.encoder=null")[0])


# -- groups --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", choices("algorithm"))
def test_every_model_of_an_algorithm_can_be_chosen(algorithm):
    """`model@algorithm.<role>=…` is a place where presets choose a model."""
    target = command_line.compose([f"algorithm={algorithm}"]).algorithm._target_
    for role, types in roles.config_roles(checks.import_algorithm(target).Config).items():
        for cls in types:
            names = [
                name for name, kind in preset_kinds().items() if getattr(MODEL_KINDS.get(kind), "config", 0) is cls
            ]
            composed = command_line.compose([f"algorithm={algorithm}", f"model@algorithm.{role}={names[0]}"])
            assert composed.algorithm[role].kind in MODEL_KINDS


def test_groups_and_presets():
    assert "ctl" in choices("algorithm")
    assert choices("algorithm") == sorted(choices("algorithm"))
    assert {"launcher", "sweeper"} <= set(choices("hydra", folders=True))
    kinds = preset_kinds()
    assert set(kinds) == set(choices("model"))
    assert (kinds["minilm"], kinds["smollm2_135m"], kinds["flan_t5_small"]) == ("encoder", "decoder", "encoder_decoder")
    assert set(kinds.values()) <= {"encoder", "cross_encoder", "decoder", "encoder_decoder", "auto"}
    assert (conf_dir() / "config.yaml").is_file()


# -- where things are written --------------------------------------------------------------------------


def test_a_folder_that_can_be_made_is_not_made(tmp_path):
    files.check_writable(tmp_path / "a" / "b", "hydra.run.dir")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_below_a_file_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match=r"^hydra\.run\.dir=.*/file/run cannot be written: Not a directory"):
        files.check_writable(tmp_path / "file" / "run", "hydra.run.dir")


def test_check_writable_finds_a_disk_that_takes_folders_and_no_files(tmp_path):
    """As a full one does; here, a limit on the size of files."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        with pytest.raises(RequestError, match=r"hydra\.run\.dir=.* cannot be written: "):
            files.check_writable(tmp_path / "run", "hydra.run.dir")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_console_scripts_see_the_working_directory(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["/x"])
    command_line.add_working_directory()
    command_line.add_working_directory()
    assert sys.path == [os.getcwd(), "/x"]
    monkeypatch.setattr(sys, "path", ["", "/x"])
    command_line.add_working_directory()
    assert sys.path == ["", "/x"]


def test_the_cache_may_be_at_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert request.cache_dir(SimpleNamespace(paths=SimpleNamespace(cache="~/c"))) == Path("/home/me/c")


# -- with the data -------------------------------------------------------------------------------------


def sizes(k: int = 1, splits=("dev", "test"), **questions: int):
    data = SimpleNamespace(passages=[0] * 5, splits={name: [0] * count for name, count in questions.items()})
    asked = SimpleNamespace(
        retriever=SimpleNamespace(k=k),
        evaluation=SimpleNamespace(splits=list(splits)),
        data=SimpleNamespace(path="d", format="jsonl"),
    )
    request.check_sizes(asked, data, ("train", *splits))


def test_the_data_is_large_enough():
    sizes(k=5, train=1, dev=1, test=1)
    sizes(splits=["dev"], train=1, dev=1)
    with pytest.raises(RequestError, match=r"retriever\.k=6 is larger than the corpus, which has 5 passages"):
        sizes(k=6, train=1, dev=1, test=1)
    for missing in ("train", "dev", "test"):
        with pytest.raises(RequestError, match=rf"data\.path=d: the {missing} split has no questions"):
            sizes(**{**{"train": 1, "dev": 1, "test": 1}, missing: 0})
    with pytest.raises(RequestError, match="the test split"):
        sizes(train=1, dev=1)


def test_training_arguments_that_contradict_each_other(tiny_bert):
    found = checked(f"model.path={tiny_bert}", "trainer.use_cpu=true", "trainer.eval_steps=7", "trainer.save_steps=5")
    with pytest.raises(RequestError, match=r"^trainer: ") as caught:
        request.check_training_arguments(found[0])
    assert "\n" not in str(caught.value)


def test_every_model_of_a_run_must_be_there(tiny_bert, tmp_path):
    more = ["algorithm=rpg", f"model.path={tiny_bert}"]
    for key in ("model", "algorithm.teacher"):
        _, resolved = checked(*more, f"algorithm.teacher.path={tiny_bert}", f"{key}.path={tmp_path}/gone")
        with pytest.raises(RequestError, match=rf"^{key}\.path: .*gone"):
            request.check_sources(resolved)
    reader = [
        "algorithm=sft",
        "model.init=random",
        f"model.path={tiny_bert}",
        f"retriever.encoder.path={tmp_path}/gone",
    ]
    with pytest.raises(RequestError, match=r"^retriever\.encoder\.path: .*gone"):
        request.check_sources(checked(*reader)[1])
    request.check_sources(checked(f"model.path={tiny_bert}")[1])


def test_a_reader_must_be_one(tiny_bert, tiny_llama):
    more = [f"model.path={tiny_llama}", f"retriever.encoder.path={tiny_bert}"]
    request.check_sources(checked("algorithm=sft", *more)[1])
    with pytest.raises(RequestError, match="tiny_llama"):
        request.check_sources(checked("algorithm=sft", "model=flan_t5_small", *more)[1])
    request.check_sources(checked("algorithm=sft", "model=flan_t5_small", "model.init=random", *more)[1])


def test_what_a_status_says_of_its_sweep():
    def facts(**sweep):
        return run._sweep_facts(SimpleNamespace(config=SimpleNamespace(sweep=schema.SweepConfig(**sweep))))

    assert facts() is None
    assert facts(name="s", job="j") == {"name": "s", "job": "j"}

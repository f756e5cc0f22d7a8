"""What is typed by habit from other tools is answered with the command that works here."""

from __future__ import annotations

import shlex

import pytest

from rag_experiments import train
from rag_experiments.config import command_line
from rag_experiments.config.groups import OPTION_GROUPS, TOP, choices
from rag_experiments.config.habit_names import ENCODERS, KEY_HABITS, LEFT_OUT, LENGTHS, READERS
from rag_experiments.config.habit_values import VALUE_HABITS
from rag_experiments.config.habits import HYDRAS, presets_by_id, rewritten, with_places
from rag_experiments.config.key_sections import option_section, sections
from rag_experiments.config.trainer_keys import fields
from rag_experiments.core.errors import RequestError
from rag_experiments.training.checks import check_common

SAMPLES = {
    "hydra.run.dir": "out", "name": "x", "seed": "3", "resume": "out", "early_stopping": "2", "paths.cache": "c",
    "model.path": "/some/folder", "data.path": "x.csv",
}  # fmt: skip
"""A value for keys outside the groups, and for those that name a place."""


def all_keys() -> set[str]:
    found = {key.name for group in (*OPTION_GROUPS, "paths") for part in sections(group) for key in part.keys}
    return found | {f"trainer.{name}" for name in fields()} | set(SAMPLES)


def test_every_habit_names_a_key_that_there_is():
    assert set(KEY_HABITS.values()) <= all_keys()
    assert len(KEY_HABITS) + len(VALUE_HABITS) >= 100


def test_no_habit_is_a_key_or_a_group():
    habits = {*KEY_HABITS, *VALUE_HABITS, *LEFT_OUT, *LENGTHS, *ENCODERS, *READERS}
    assert habits & (all_keys() | set(OPTION_GROUPS)) == {"model.lora"}, "a truth value where keys stand"


@pytest.mark.parametrize("habit", sorted(KEY_HABITS))
def test_a_habit_is_answered_as_a_key_and_as_an_option(habit):
    key = KEY_HABITS[habit]
    value = SAMPLES.get(key, "7")
    right = ["model=run", f"model.path={value}"] if key == "model.path" else [f"{key}={value}"]
    assert rewritten([f"{habit}={value}"]) == right
    assert rewritten([f"--{habit.replace('_', '-')}", value]) == right
    assert rewritten([f"--{habit}={value}", "seed=1"]) == [*right, "seed=1"]
    if key.startswith("trainer."):
        assert rewritten([f"trainer.{habit}={value}"]) == (None if habit in fields() else right) or habit in (
            "warmup_ratio", "evaluation_strategy",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("typed", "right"),
    [
        ("--learning_rate 1e-5", "trainer.learning_rate=1e-5"),
        ("--fp16", "trainer.fp16=true"),
        ("num_train_epochs=3", "trainer.num_train_epochs=3"),
        ("trainer.lr=1e-5", "trainer.learning_rate=1e-5"),
        ("trainer.batch_size=8", "trainer.per_device_train_batch_size=8"),
        ("wandb=disabled", "tracking=none"),
        ("wandb=offline", "tracking=wandb_offline"),
        ("--report_to wandb", "tracking=wandb"),
        ("--report_to none lr=2", "tracking=none trainer.learning_rate=2"),
        ("lora=true", "model.lora.r=16"),
        ("model.lora=true", "model.lora.r=16"),
        ("--dry-run", "plan=true"),
        ("resume=true", "resume=auto"),
        ("--resume_from_checkpoint out", "resume=out"),
        ("resume_from_checkpoint=True", "resume=auto"),
        ("ctl", "algorithm=ctl"),
        ("minilm seed=1", "model=minilm seed=1"),
        ("device=cpu", "trainer.use_cpu=true"),
        ("device=cuda seed=1", "seed=1"),
        ("precision=bf16-mixed", "model.precision=bf16"),
        ("--config foo.yaml", "experiment=foo"),
        ("--config my/experiment/foo.yaml", "--config-dir my experiment=foo"),
        ("model=all-MiniLM-L6-v2", "model=minilm"),
        ("model@retriever.encoder=e5-base-v2", "model@retriever.encoder=e5_base"),
        ("--model_name_or_path intfloat/e5-base-v2", "model=e5_base"),
        ("--model_name_or_path /my/model", "model=run model.path=/my/model"),
        ("--do_train --lr 2", "trainer.learning_rate=2"),
        ("max_length=128", "model.max_passage_length=128"),
        ("--max_seq_length 128 algorithm=sft", "model.max_input_length=128 algorithm=sft"),
        ("algorithm=rerank cutoff_len=128", "algorithm=rerank model.max_length=128"),
        ("encoder=all-MiniLM-L6-v2", "model=minilm"),
        ("encoder=all-MiniLM-L6-v2 algorithm=sft", "model@retriever.encoder=minilm algorithm=sft"),
        ("algorithm=fid llm=/my/t5", "algorithm=fid model=run model.path=/my/t5"),
        ("--seed 1 --retriever.k 3", "seed=1 retriever.k=3"),
        ("--use_peft --lora_r 8", "model.lora.r=8"),
        ("lora_target=all pooling=eos", "model.lora.target_modules=all-linear model.pooling=last"),
        ("optimizer.lr=1e-5 data.batch_size=8", "trainer.learning_rate=1e-5 trainer.per_device_train_batch_size=8"),
        ("retriever=dense", "retriever=faiss_flat"),
        ("--torch_dtype bfloat16", "model.precision=bf16"),
        ("scale=20", "algorithm.temperature=0.05"),
        ("--train_group_size 8", "algorithm.hard_negatives=7"),
        ("val_size=0.1 validation_file=dev.csv", "data.dev_fraction=0.1 data.files.dev=dev.csv"),
        ("val_size=200", "data.max_dev=200"),
        ("--trust_remote_code name=a --gpus=2", "name=a"),
    ],
)
def test_what_a_habit_means(typed, right):
    assert rewritten(shlex.split(typed)) == shlex.split(right)


@pytest.mark.parametrize(
    ("typed", "right"),
    [
        ("algorithm=rerank objective=listwise", "algorithm=rerank algorithm.objective=listwise"),
        ("objective=kl seed=1 algorithm=rerank", "algorithm.objective=kl seed=1 algorithm=rerank"),
        ("--objective listwise algorithm=rerank", "algorithm.objective=listwise algorithm=rerank"),
        ("--mini-batch-size=16", "algorithm.mini_batch_size=16"),  # of the default algorithm
        ("algorithm=ctl rerank_depth=9", "algorithm=ctl retriever.rerank_depth=9"),
        ("zero_shot=false cutoffs=[1,2]", "evaluation.zero_shot=false evaluation.cutoffs=[1,2]"),
        ("lora.r=4", "model.lora.r=4"),
        ("max_train=10", "data.max_train=10"),
        ("columns.question=q", "data.columns.question=q"),
        ("learning_rate=1e-5", "trainer.learning_rate=1e-5"),
        ("-m algorithm=ctl,rerank objective=kl", "-m algorithm=ctl,rerank algorithm.objective=kl"),
    ],
)
def test_a_key_without_its_group_is_answered_with_it(typed, right):
    assert rewritten(shlex.split(typed)) == shlex.split(right)


def test_every_key_of_every_algorithm_is_known_without_its_group():
    """But for those that are typed for another thing."""
    for option in choices("algorithm"):
        for key in option_section("algorithm", option).keys:
            name = key.name.removeprefix("algorithm.")
            taken = name in (*TOP, *OPTION_GROUPS, *KEY_HABITS, *VALUE_HABITS, *LEFT_OUT) or name in fields()
            if not taken and name.partition(".")[0] not in OPTION_GROUPS:
                assert rewritten([f"{name}=1", f"algorithm={option}"])[0] == f"{key.name}=1"


def test_what_is_left_out_is_said_with_its_reason():
    with pytest.raises(RequestError) as refused:
        train.start(["--trust_remote_code", "deepspeed=ds.json", "lr=1e-5"])
    trust, deepspeed, reason = str(refused.value).partition("; deepspeed")
    assert trust == "trust_remote_code is left out, since no code of a model's repository is run here"
    assert deepspeed
    assert reason.startswith(" is left out, since each process holds the whole model here")
    assert reason.endswith("that is written otherwise here: python -m rag_experiments.train trainer.learning_rate=1e-5")


def test_a_key_of_ones_own_format_is_no_habit(tmp_path):
    """A format from outside the package may call its keys as others call theirs."""
    assert rewritten(["data.file=a.csv"]) == ["data.path=a.csv"]
    assert rewritten(["--config-dir", str(tmp_path), "data=mine", "data.file=a.csv", "model.lr=1"]) is None


def test_no_option_of_hydras_is_a_key():
    names = {key.partition(".")[2] for key in all_keys()}
    assert not names & set(HYDRAS)


def test_the_refusal_is_the_whole_command():
    with pytest.raises(RequestError, match=r"train algorithm=rerank algorithm\.objective=kl plan=true$"):
        train.start(["algorithm=rerank", "objective=kl", "plan=true"])


@pytest.mark.parametrize(
    "typed",
    [
        "objective=kl algorithm=ctl", "candidates=3 algorithm=nosuch", "batch=3", "algorithm.objective=kl",
        "seed=1 name=x plan=true", "trainer.learning_rate=1e-5", "-m seed=1,2", "--config-dir ctl seed=1", "--cfg job",
        "model=minilm", "model=/dir", "retriever.k=4", "+trainer.lr=3", "--hydra-help", "resume=auto", "~experiment",
        "experiment=demo", "nonsense", "a=b", "'model.lora={r: 4}'", "model.lora=null",
    ],
)  # fmt: skip
def test_what_is_no_habit_is_left_alone(typed):
    assert rewritten(shlex.split(typed)) is None


@pytest.mark.parametrize(
    ("typed", "right"),
    [
        ("model=/my/folder", ["model=run", "model.path=/my/folder"]),
        ("model=run://outputs/x", ["model=run", "model.path=run://outputs/x"]),
        ("model=org/name", ["model=run", "model.path=org/name"]),
        ("model@algorithm.teacher=./a", ["model@algorithm.teacher=run", "algorithm.teacher.path=./a"]),
        ("model=intfloat/e5-base-v2", ["model=e5_base"]),
        ("model=minilm", ["model=minilm"]),
        ("model.path=/x", ["model.path=/x"]),
        ("data.path=org/name", ["data.path=org/name"]),
        ("data=questions.csv", ["data=auto", "data.path=questions.csv"]),
        ("data=train.jsonl.gz", ["data=auto", "data.path=train.jsonl.gz"]),
        ("data=jsonl", ["data=jsonl"]),
    ],
)
def test_the_place_of_a_model_is_taken_where_an_option_stands(typed, right):
    assert with_places([typed]) == right


def test_an_option_of_ones_own_stays_one(tmp_path):
    (tmp_path / "model" / "mine").mkdir(parents=True)
    (tmp_path / "model" / "mine" / "a.yaml").write_text("kind: encoder")
    assert with_places(["model=mine/a"], str(tmp_path)) == ["model=mine/a"]
    assert command_line.parse(["--config-dir", str(tmp_path), "model=mine/a"]).overrides == ["model=mine/a"]


def test_a_model_in_a_folder_is_opened_as_its_kind(tiny_bert, tiny_llama):
    for folder, kind, algorithm in ((tiny_bert, "encoder", "ctl"), (tiny_llama, "decoder", "sft")):
        line = command_line.parse([f"model={folder}", f"algorithm={algorithm}", "data=keyvalue"])
        config, _ = check_common(command_line.compose(line.overrides))
        assert (config.model.path, config.model.kind) == (str(folder), kind)


def test_presets_are_found_by_their_id():
    assert presets_by_id()["sentence-transformers/all-MiniLM-L6-v2"] == "minilm_hub"
    assert set(presets_by_id().values()) <= set(choices("model"))


def test_the_answer_is_a_whole_command_with_the_words_that_were_right():
    with pytest.raises(RequestError) as refused:
        train.start(["--learning-rate", "1e-5", "name=it's", "algorithm=sft"])
    command = str(refused.value).partition(": ")[2]
    assert shlex.split(command) == [
        "python", "-m", "rag_experiments.train", "trainer.learning_rate=1e-5", "name=it's", "algorithm=sft",
    ]  # fmt: skip

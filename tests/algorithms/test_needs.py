"""What each algorithm needs of every question, as its paper does; a question that lacks it is refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from rag_experiments.algorithms import ctl, dca, distillation, fid, joint, rpg, sft, swr
from rag_experiments.algorithms.shared.reader_examples import check_teacher
from rag_experiments.config.schema import FidSettings, ReaderConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.data.load import check_required_fields
from rag_experiments.data.records import Question
from tests.algorithms.reader_parts import make_trainer
from tests.tiny_readers import write_tiny_llama

NEEDS = {
    ctl.CTLTrainer: {"positive_ids"},
    dca.DCATrainer: set(),
    rpg.RPGTrainer: {"answers"},
    joint.JointTrainer: {"answers"},
    sft.SFTTrainer: {"positive_ids", "answers"},
    swr.SwRTrainer: {"positive_ids", "answers"},
    fid.FiDTrainer: {"answers"},
}


@pytest.mark.parametrize("trainer_class", NEEDS, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("lacking", ["positive_ids", "answers"])
def test_a_question_that_lacks_what_is_needed_is_refused(trainer_class, lacking):
    whole = {"id": "q", "question": "?", "answers": ("a",), "positive_ids": ("p",)}
    data = SimpleNamespace(splits={"train": [Question(**{**whole, lacking: ()})]}, places={}, notes=[])
    if lacking in NEEDS[trainer_class]:
        with pytest.raises(RequestError, match=f"no {lacking}"):
            check_required_fields(data, trainer_class.required_fields, "it")
    else:
        check_required_fields(data, trainer_class.required_fields, "it")


def test_a_distillation_that_scores_nothing_is_written_wrong():
    trainer = distillation.DistillationTrainer.__new__(distillation.DistillationTrainer)
    with pytest.raises(TypeError, match="must implement teacher_scores"):
        trainer.teacher_scores([], None)


def test_lengths_are_those_of_the_first_epoch(tmp_path):
    """Batches of similar length are made of them, and another answer is drawn in each epoch."""
    trainer = make_trainer(sft.SFTTrainer, write_tiny_llama(tmp_path), tmp_path, algorithm_answer="random")
    examples = trainer.train_dataset

    def lengths(epoch: int) -> list[int]:
        examples.set_epoch(epoch)
        return [len(example["input_ids"]) + len(example["answer_ids"]) for example in examples]

    assert trainer.lengths == lengths(0)
    assert trainer.lengths != lengths(1)


def test_what_check_cannot_leave_out_is_not_offered(tmp_path):
    """`check.needs` knows answers and positives alone."""
    whole = Question(id="p", question="?", positive_ids=("p",), candidate_ids=("c",))
    data = SimpleNamespace(splits={"train": [Question(id="q", question="?"), whole]}, places={}, notes=[])
    with pytest.raises(RequestError) as refused:
        check_required_fields(data, {"candidate_ids"}, "it")
    assert "check.needs" not in str(refused.value)
    with pytest.raises(RequestError, match=r"check\.needs=\[positives\]"):
        check_required_fields(data, {"positive_ids"}, "it")


@pytest.mark.parametrize("fid", [None, FidSettings()])
def test_a_question_that_leaves_a_teacher_no_room_is_refused_by_the_teachers_key(tmp_path, fid):
    teacher = ReaderConfig(path=str(write_tiny_llama(tmp_path)), max_input_length=300, fid=fid)
    short = Question(id="a", question="who?", answers=("he",))
    long = Question(id="b", question="x" * 400, answers=("he",))
    check_teacher(teacher, SimpleNamespace(splits={"train": [short]}, places={}))
    with pytest.raises(RequestError, match=r"question 'b'.*algorithm\.teacher\.max_input_length"):
        check_teacher(teacher, SimpleNamespace(splits={"train": [short, long]}, places={}))

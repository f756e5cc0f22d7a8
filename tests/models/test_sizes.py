"""What a plan says of a model is what is in memory once it is read."""

from __future__ import annotations

import pytest
import torch

from rag_experiments.config.schema import EncoderConfig, LoraConfig, ReaderConfig
from rag_experiments.models.encoder.encoder import Encoder
from rag_experiments.models.reader.reader import Reader
from rag_experiments.models.sizes import Sizes, hidden_size, sizes, token_counts
from tests.tiny_readers import tiny_llama, tiny_t5  # noqa: F401 - fixtures

CPU = torch.device("cpu")


def of_module(module, trained: bool) -> tuple[int, int, float]:
    """Parameters, those that learn, and bytes, of a model that was read."""
    sizes_of = [(p.numel(), p.requires_grad and trained, p.element_size()) for p in module.parameters()]
    learning = sum(count for count, learns, _ in sizes_of if learns)
    memory = sum(count * (16 if learns else size) for count, learns, size in sizes_of)
    return sum(count for count, _, _ in sizes_of), learning, memory


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("trained", [True, False])
def test_a_reader(tiny_llama, precision, trained):  # noqa: F811
    config = ReaderConfig(path=str(tiny_llama), precision=precision)
    read = Reader.load(config, device="cpu", frozen=not trained)
    assert sizes(config, trained, CPU) == Sizes(*of_module(read.module, trained))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_adapters(tiny_llama, precision):  # noqa: F811
    config = ReaderConfig(path=str(tiny_llama), precision=precision, lora=LoraConfig(r=2))
    everything, learning, memory = of_module(Reader.load(config, device="cpu").module, True)
    found = sizes(config, True, CPU)
    assert found == Sizes(everything - learning, learning, memory)
    assert 0 < found.trained < found.parameters / 2


def test_an_encoder_decoder(tiny_t5):  # noqa: F811
    config = ReaderConfig(path=str(tiny_t5), kind="encoder_decoder", precision="fp32")
    assert sizes(config, True, CPU) == Sizes(*of_module(Reader.load(config, device="cpu").module, True))


def test_an_encoder_and_its_tokens(tiny_bert):
    config = EncoderConfig(path=str(tiny_bert), precision="fp32")
    encoder = Encoder.load(config, "cpu")
    assert sizes(config, False, CPU) == Sizes(*of_module(encoder, False))
    assert hidden_size(config) == encoder.dimension
    texts = ["a cat", "the dog sleeps in the house"]
    assert token_counts(config, texts) == [len(row) for row in encoder.tokenize_passages(texts)]


def test_adapters_of_an_earlier_run(tiny_llama, tmp_path):  # noqa: F811
    asked = ReaderConfig(path=str(tiny_llama), precision="fp32", lora=LoraConfig(r=2))
    Reader.load(asked, device="cpu").save(tmp_path / "adapters")
    assert sizes(ReaderConfig(path=str(tmp_path / "adapters"), precision="fp32"), True, CPU) == sizes(asked, True, CPU)


def test_what_is_not_on_this_disk_is_unknown(tmp_path):
    (tmp_path / "weights_alone.gguf").write_bytes(b"GGUF")
    config = ReaderConfig(path=str(tmp_path))
    assert sizes(config, True, CPU) is None
    assert token_counts(config, ["a cat"]) is None

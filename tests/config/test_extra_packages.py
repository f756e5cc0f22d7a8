"""A setting whose package is not installed is refused with the package's name; with the package it is not."""

from __future__ import annotations

import pytest

from rag_experiments.config import extra_packages
from rag_experiments.config.extra_packages import check_packages
from rag_experiments.core.errors import RequestError

NEEDS = {
    "bitsandbytes": [
        ({"optim": "adamw_bnb_8bit"}, {}),
        ({"optim": "adamw_8bit"}, {}),
        ({"optim": "paged_adamw_32bit"}, {}),
        ({"optim": "lion_32bit"}, {}),
        ({"optim": "rmsprop_bnb"}, {}),
        ({}, {"load_in_4bit": True}),
    ],
    "galore-torch": [({"optim": "galore_adamw_8bit"}, {})],
    "apollo-torch": [({"optim": "apollo_adamw"}, {})],
    "lomo-optim": [({"optim": "adalomo"}, {})],
    "grokadamw": [({"optim": "grokadamw"}, {})],
    "schedulefree": [({"optim": "schedule_free_sgd"}, {})],
    "torch-optimi": [({"optim": "stable_adamw"}, {})],
    "torchao": [({"optim": "adamw_torch_8bit"}, {})],
    "liger-kernel": [({"use_liger_kernel": True}, {})],
    "flash-attn": [({}, {"attn_implementation": "flash_attention_2"})],
    "kernels": [({}, {"attn_implementation": "kernels-community/flash-attn2"})],
}
CASES = [(package, *case) for package, cases in NEEDS.items() for case in cases]


@pytest.mark.parametrize(("package", "trainer", "model"), CASES)
def test_check_packages_names_what_is_missing(package, trainer, model, monkeypatch):
    monkeypatch.setattr(extra_packages, "_is_installed", lambda _: False)
    with pytest.raises(RequestError, match=f"pip install {package}") as refused:
        check_packages(trainer, {"retriever.encoder": model})
    assert ("retriever.encoder." if model else "trainer.") in str(refused.value)
    monkeypatch.setattr(extra_packages, "_is_installed", lambda _: True)
    check_packages(trainer, {"retriever.encoder": model})


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop"])
def test_check_packages_lets_what_torch_brings_pass(optim, monkeypatch):
    monkeypatch.setattr(extra_packages, "_is_installed", lambda _: False)
    check_packages({"optim": optim}, {"model": {"attn_implementation": "sdpa"}})


def test_check_packages_knows_every_optimiser_of_the_installed_transformers(monkeypatch):
    """An optimiser that is neither torch's own nor in the list would be found missing after the start."""
    from transformers.training_args import OptimizerNames

    monkeypatch.setattr(extra_packages, "_is_installed", lambda _: False)
    passed = set()
    for optimiser in OptimizerNames:
        try:
            check_packages({"optim": optimiser.value}, {})
        except RequestError:
            continue
        passed.add(optimiser.value)
    assert passed == {"adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop"}


def test_is_installed_of_a_part_of_a_package_that_is_not_there():
    assert not extra_packages._is_installed("nosuchpackage.part")
    assert extra_packages._is_installed("json.decoder")

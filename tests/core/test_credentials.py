"""Credentials reach neither a command line nor a file."""

from __future__ import annotations

import pytest

from rag_experiments.core.credentials import mask_secrets, refuse_secrets
from rag_experiments.core.errors import RequestError

HEX40 = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    "override",
    [
        "+tracking.api_key=abc",
        "trainer.hub_token=hf_" + "a" * 34,
        "name=hf_" + "b" * 34,
        "tracking.entity=" + HEX40,
        "+db.password='hunter2'",
        "data.path=https://me:secret@example.org/x.jsonl",
        "++x.HF_TOKEN=abc",
        "model.path=m,hf_" + "c" * 34,
        "+env.WANDB_API_KEY=" + HEX40,
    ],
)
def test_a_credential_on_the_command_line_is_refused_and_not_repeated(override):
    with pytest.raises(RequestError, match="credential") as caught:
        refuse_secrets(["seed=1", override])
    secret = override.split("=", 1)[1]
    assert secret.strip("'") not in str(caught.value)


def test_what_only_resembles_a_credential_passes():
    refuse_secrets(
        [
            "model.max_new_tokens=32",
            "+model.tokenizer=bert",
            "+model.eos_token=</s>",
            "+model.pad_token=[PAD]",
            "trainer.hub_token=null",
            "trainer.include_num_input_tokens_seen=all",
            "model.revision=" + HEX40,
            "+x.api_key=${oc.env:KEY}",
            "data.path=https://example.org/a@b",
            "hydra.sweep.dir=/tmp/a:b@c",
            "~tracking",
            "-m",
            "trainer.push_to_hub_token=",
        ]
    )


def test_credentials_are_masked_at_any_depth():
    config = {"a": {"hub_token": "x", "tokens": ["hf_" + "a" * 30, "plain"]}, "max_new_tokens": 3, "n": None}
    assert mask_secrets(config) == {
        "a": {"hub_token": "***", "tokens": ["***", "plain"]},
        "max_new_tokens": 3,
        "n": None,
    }

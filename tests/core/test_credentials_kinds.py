"""Every kind of credential is known by its value, every name of one by its name, each by itself."""

from __future__ import annotations

import re

import pytest

from rag_experiments.core import credentials
from rag_experiments.core.credentials import refuse_secrets
from rag_experiments.core.errors import RequestError

A = "aB3" * 20

VALUES = {
    "Hugging Face": "hf_" + A[:20],
    "Hugging Face, of an organisation": "api_org_" + A[:20],
    "OpenAI": "sk-" + A[:20],
    "OpenAI, of a project": "sk-proj-" + "a_b-" * 6,
    "GitHub, personal": "ghp_" + A[:30],
    "GitHub, OAuth": "gho_" + A[:30],
    "GitHub, user to server": "ghu_" + A[:30],
    "GitHub, server to server": "ghs_" + A[:30],
    "GitHub, refresh": "ghr_" + A[:30],
    "GitHub, fine-grained": "github_pat_" + "11AB_" * 6,
    "GitLab": "glpat-" + "a-_B1" * 4,
    "Slack, bot": "xoxb-" + "12345-6789",
    "Slack, app": "xoxa-" + "12345-6789",
    "Slack, user": "xoxp-" + "12345-6789",
    "Slack, refresh": "xoxr-" + "12345-6789",
    "Slack, workspace": "xoxs-" + "12345-6789",
    "AWS": "AKIA" + "A1B2" * 4,
    "W&B": "wandb_v1_" + "a-_B1" * 4,
    "W&B, old": "0123456789abcdef0123456789abcdef01234567",
    "W&B, a server of one's own": "local-0123456789abcdef0123456789abcdef01234567",
    "Google": "AIza" + (A + A)[:35],
    "JSON web token": "eyJ" + A[:10] + ".eyJ" + A[:10] + "." + A,
    "a private key": "-----BEGIN RSA PRIVATE KEY-----",
    "a private key of no kind": "-----BEGIN PRIVATE KEY-----",
    "an address with a password": "postgresql://me:hunter2@db/x",
    "an address with a password alone": "redis://:hunter2@db",
}


@pytest.mark.parametrize("kind", VALUES)
def test_a_value_that_is_a_credential_is_refused_wherever_it_stands(kind):
    value = VALUES[kind]
    for override in (f"name={value}", f"+x.y='{value}'", f"data.path=a,{value},b", f"x=[a,{value}]", f"x=[{value}]"):
        with pytest.raises(RequestError, match="credential") as caught:
            refuse_secrets(["seed=1", override, "plan=true"])
        assert value not in str(caught.value)
    assert credentials.mask_secrets({"a": [{"b": value}]}) == {"a": [{"b": "***"}]}


@pytest.mark.parametrize("kind", VALUES)
def test_what_is_shorter_than_such_a_value_or_inside_a_word_is_none(kind):
    value = VALUES[kind]
    if "://" in value or "PRIVATE" in value:
        return
    assert not credentials.looks_secret("name", value[: len(value) // 4])
    if re.match(r"[A-Za-z]", value) and not value.startswith("local-"):
        assert not credentials.looks_secret("name", f"x{value}")


NAMES = [
    "api_key",
    "apikey",
    "access_key",
    "access_key_id",
    "secret",
    "secret_key",
    "secretkey",
    "client_secret",
    "private_key",
    "privatekey",
    "password",
    "passwd",
    "passphrase",
    "credential",
    "credentials",
    "auth",
    "bearer",
    "token",
    "hub_token",
    "hf_token",
    "huggingface_token",
    "api_token",
    "access_token",
    "auth_token",
    "bearer_token",
    "secret_token",
    "refresh_token",
    "session_token",
    "security_token",
    "wandb_token",
    "github_token",
    "gh_token",
    "gitlab_token",
    "openai_token",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_a_credential_is_known_in_every_spelling(name):
    words = name.split("_")
    camel = words[0] + "".join(word.capitalize() for word in words[1:])
    for key in (name, name.upper(), name.replace("_", "-"), camel, f"a.b.{name}"):
        assert credentials.looks_secret(key, "hunter2"), key
    if name != "token":
        assert credentials.looks_secret(f"my_{name}", "hunter2")
    assert not credentials.looks_secret(f"{name}.layers", "hunter2")  # the last part counts
    assert not credentials.looks_secret(f"{name}s_kept", "hunter2")


@pytest.mark.parametrize(
    "name", ["eos_token", "max_token", "tokenizer", "tokens", "monkey", "keys", "bypassword", "author"]
)
def test_other_names_are_none(name):
    assert not credentials.looks_secret(name, "hunter2")


@pytest.mark.parametrize(
    "value", ["", "null", "None", "true", "FALSE", "~", "${oc.env:HF_TOKEN}", "***", " null ", "'null'", '"~"']
)
def test_a_value_that_holds_nothing_is_no_secret(value):
    assert not credentials.looks_secret("api_key", value)
    refuse_secrets([f"+x.api_key={value}"])


@pytest.mark.parametrize("value", [None, 3, 2.5, True, ["x"], {"a": "b"}])
def test_only_text_can_be_one(value):
    assert not credentials.looks_secret("api_key", value)


def test_a_commit_is_no_key_where_its_name_says_so():
    commit = VALUES["W&B, old"]
    for key in ("model.revision", "git_commit", "x.sha", "content_hash"):
        assert not credentials.looks_secret(key, commit)
    assert credentials.looks_secret("name", commit)
    assert not credentials.looks_secret("name", commit + "0")  # another length is another thing
    assert not credentials.looks_secret("name", commit[1:])


def test_a_key_that_is_itself_a_credential_is_not_repeated():
    for secret in (VALUES["Hugging Face"], VALUES["GitHub, personal"]):
        with pytest.raises(RequestError, match=r"^an override looks like a credential") as caught:
            refuse_secrets([f"+{secret}.token=x"])
        assert secret not in str(caught.value)


@pytest.mark.parametrize("override", ["++a.api_key=x", "~a.api_key=x", "api_key@a.b=x", "+api_key@a=x"])
def test_marks_of_hydras_grammar_hide_nothing(override):
    with pytest.raises(RequestError, match="api_key looks"):
        refuse_secrets([override])


@pytest.mark.parametrize("override", ["x.api_key=a=b", "name=postgresql://me:hun,ter2@db"])
def test_signs_inside_a_value_hide_nothing(override):
    with pytest.raises(RequestError, match="credential"):
        refuse_secrets([override])


def test_every_override_is_looked_at_and_the_sentence_says_what_to_do():
    with pytest.raises(RequestError, match=r"^x\.hub_token looks like a credential.*WANDB_API_KEY, HF_TOKEN"):
        refuse_secrets(iter(["seed=1", "x.hub_token=a", "name=b"]))


def test_masking_changes_nothing_else():
    config = {"a": {"hub_token": "x", "n": 1, "list": ("p", {"password": "y"}), "none": None}, "api_key": ["u", "v"]}
    before = repr(config)
    assert credentials.mask_secrets(config) == {
        "a": {"hub_token": "***", "n": 1, "list": ["p", {"password": "***"}], "none": None},
        "api_key": ["***", "***"],
    }
    assert repr(config) == before

"""What a run configuration may hold: one dataclass per config group, checked without torch.

Types, ranges and choices live here; the values that a run gets are in `conf/`, and keys that no file there
mentions have their default here. `config.py` turns a composed
configuration into these. An algorithm's own hyper-parameters are a dataclass in its own file,
a data format's in its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic_core import core_schema

PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]

Precision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Matching:
    """For `Annotated`: the whole text must match `pattern`; `what` says in words what that is."""

    pattern: str
    what: str

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def _check(self, text: str) -> str:
        if re.fullmatch(self.pattern, text) is None:
            raise ValueError(f"must be {self.what}")
        return text


@dataclass(kw_only=True)
class ModelConfig:
    """What every model has: where its weights come from and the numbers it computes in."""

    path: Annotated[str, Field(min_length=1)]
    """A hub id, a local folder, `package://<package>/<file>`, or `run://<run directory>`."""
    kind: str
    """A name of `config.kinds.MODEL_KINDS`."""
    revision: str | None = None
    precision: Precision = "auto"
    """Computation under autocast; weights being trained stay fp32. `auto`: bf16 where the hardware has it."""
    attn_implementation: str | None = None
    init: Literal["pretrained", "random"] = "pretrained"
    """`random`: the architecture at `path` (or `architecture`) with fresh weights."""
    architecture: dict[str, Any] | None = None
    """Fields of the model's Hugging Face config, for `init: random` without a pretrained folder."""


@dataclass(kw_only=True)
class EncoderConfig(ModelConfig):
    """A text encoder and everything that decides what `s(q, p)` is. `None`/`auto`: as the model's folder says."""

    kind: Literal["encoder"] = "encoder"
    pooling: Literal["auto", "mean", "cls", "last"] = "auto"
    similarity: Literal["auto", "cosine", "dot"] = "auto"
    query_prefix: str | None = None
    passage_prefix: str | None = None
    max_query_length: PositiveInt | None = None
    max_passage_length: PositiveInt | None = None
    batch_size: PositiveInt = 64
    """Texts per forward pass when a corpus is embedded."""
    padding_side: Literal["left", "right"] | None = None
    append_eos: bool = False
    dimension: PositiveInt | None = None
    """Keep the first `dimension` components only (Matryoshka)."""


@dataclass(kw_only=True)
class LoraConfig:
    """Low-rank adapters (Hu et al. 2021), through `peft`."""

    r: PositiveInt = 16
    alpha: PositiveInt = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    target_modules: str | list[str] = "all-linear"


@dataclass(kw_only=True)
class FidSettings:
    """How a reader encodes each passage independently (Fusion-in-Decoder). Saved with the model, which learnt it so."""

    passage_tokens: PositiveInt = 250
    """Tokens of one passage; for an encoder-decoder with the question beside it, as published."""
    question_with_passage: bool = True
    """A decoder LM sees the question before each passage too, as published; without, passage states are reusable."""
    sub_batch_size: PositiveInt = 16
    """Passages of similar length encoded at a time."""
    reuse_mb: NonNegativeInt = 1024
    """Memory for passage states that several questions share when answering; 0 keeps none."""


@dataclass(kw_only=True)
class ReaderConfig(ModelConfig):
    """A language model that reads passages and answers: a decoder or an encoder-decoder."""

    kind: Literal["decoder", "encoder_decoder"] = "decoder"
    max_input_length: PositiveInt | None = None
    """Tokens of prompt and answer together (decoder); of one passage's input (FiD).

    `None`: the model's own limit, 2048 at most."""
    max_new_tokens: PositiveInt | None = None
    """Tokens an answer may have. `None`: those of the longest training answer and a quarter more, between 32 and 512;
    32 for a reader that is not trained."""
    batch_size: PositiveInt = 16
    """Prompts per generation batch."""
    chat_template: Literal["auto", "none"] = "auto"
    """`auto`: the tokenizer's where it has one, the documented plain template else; `none`: the plain one."""
    instruction: str | None = None
    """Replaces the default instruction in the prompt."""
    template_date: Annotated[str, Matching(r"\d{4}-\d\d-\d\d", "a date such as 2024-07-26")] | None = None
    """The date that a chat template prints as today's, such as 2024-07-26; `None`: the one the model was trained with,
    else that one. Never the clock's: a prompt must not change overnight."""
    lora: LoraConfig | None = None
    load_in_4bit: bool = False
    fid: FidSettings | None = None
    """`None`: all passages are in one prompt; set: each is encoded independently, one answer over all."""


@dataclass(kw_only=True)
class RetrieverConfig:
    """How passages are found."""

    type: str = "faiss"
    """A name of `config.kinds.RETRIEVER_KINDS`."""
    k: PositiveInt = 4
    """Passages a reader gets. How deep retrieval is evaluated is `evaluation.depth`."""
    encoder: EncoderConfig | None = None
    """`None`: the encoder being trained."""
    index: Literal["flat", "ivf", "hnsw"] = "flat"
    nlist: PositiveInt | None = None
    nprobe: PositiveInt = 16
    hnsw_m: PositiveInt = 32
    ef_construction: PositiveInt = 200
    ef_search: PositiveInt = 128
    device: Literal["auto", "cpu", "gpu"] = "auto"
    bm25_k1: PositiveFloat = 1.5
    bm25_b: Fraction = 0.75
    fusion: Literal["rrf", "weighted"] = "rrf"
    rrf_k: PositiveInt = 60
    dense_weight: Fraction = 0.5


@dataclass(kw_only=True)
class DataConfig:
    """What every data format has; a format's own keys are a subclass in its own file."""

    format: str
    path: str | None = None
    titles: bool = True
    """False: passages without their titles, where the answer would stand in one."""
    dev_fraction: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    test_fraction: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    split_seed: NonNegativeInt = 0
    """Seed of the split made where dev or test is missing. Not `seed`: runs with other seeds must compare."""
    query_history: Literal["none", "user", "all"] = "user"
    """Which earlier turns stand before the question in the retrieval query."""
    max_train: PositiveInt | None = None
    max_dev: PositiveInt | None = None
    max_test: PositiveInt | None = None


@dataclass(kw_only=True)
class EvaluationConfig:
    """When and how deep to evaluate."""

    zero_shot: bool = True
    splits: list[Literal["dev", "test"]] = field(default_factory=lambda: ["dev", "test"])
    depth: PositiveInt = 20
    """Passages retrieved per question when retrieval is measured; clamped to the corpus."""
    cutoffs: list[PositiveInt] = field(default_factory=lambda: [1, 4, 20])
    baselines: list[str] = field(default_factory=lambda: ["bm25"])
    """Retrievers without an encoder, by type, that are measured beside an encoder that is trained; `[]`: none."""
    max_questions: PositiveInt | None = None
    """A seeded subset for the evaluations during training and at zero shot; the final one takes all."""
    bootstrap: NonNegativeInt = 1000
    """Resamples behind `…_ci_low` and `…_ci_high`; 0 leaves them out."""
    oracle: bool = False
    """Readers: measured with the gold passages as well, as `oracle_…`."""
    bleu: bool = False
    num_beams: PositiveInt = 1
    latency: NonNegativeInt = 16
    """Questions asked one by one at the final evaluation, for the median and 95th percentile of their time."""


@dataclass(kw_only=True)
class TrackingConfig:
    """Weights & Biases, or nothing. `metrics.jsonl` is written always."""

    backend: Literal["wandb", "none"] = "wandb"
    mode: Literal["auto", "online", "offline"] = "auto"
    """`auto`: online where a key is found in the environment, else offline."""
    project: str = "rag_experiments"
    entity: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    log_model: bool = False
    table_rows: NonNegativeInt = 200


@dataclass(kw_only=True)
class SweepConfig:
    """What a multirun does when a job fails, and when it is started again."""

    on_error: Literal["continue", "stop"] = "continue"
    retry_failed: bool = True
    """Started again: failed jobs run again (from their checkpoint where there is one), or are left."""
    reuse_completed: bool = True
    """Jobs with the same configuration and data return their result at once; False: they run again beside it."""
    same_code: bool = False
    """True: a result made by another git commit is not reused."""
    metric: str | None = None
    """What is shown and searched by; None: `trainer.metric_for_best_model`."""
    name: str | None = None
    job: str | None = None
    """Set by the sweep: its name and the job's, for `status.json` and the tracker."""
    study: str | None = None
    trial: NonNegativeInt | None = None
    """Set by a search: where its study is kept and which trial this is, for pruning."""


@dataclass(kw_only=True)
class PathsConfig:
    """Where things are written."""

    outputs: str = "outputs"
    sweeps: str = "multirun_sweeps"
    cache: str = "~/.cache/rag_experiments"


@dataclass(kw_only=True)
class RunConfig:
    """One checked run. `algorithm` is the algorithm's own dataclass, `trainer` the given TrainingArguments."""

    seed: NonNegativeInt
    name: str
    resume: str | None
    plan: bool
    early_stopping: PositiveInt | None
    """Evaluations without a better `trainer.metric_for_best_model` after which training ends."""
    model: Any
    """A `ModelConfig`: of the kind that `model.kind` names."""
    algorithm: Any
    data: DataConfig
    retriever: RetrieverConfig
    trainer: dict[str, Any]
    evaluation: EvaluationConfig
    tracking: TrackingConfig
    sweep: SweepConfig
    paths: PathsConfig

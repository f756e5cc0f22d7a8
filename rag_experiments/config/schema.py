"""What a run configuration may hold: one dataclass per config group, checked without torch.

Types, ranges, choices, defaults and what a key means stand here and nowhere else: a YAML in `conf/` holds what its
option chooses. `--help <group>` and docs/manual/keys.md are made from the docstrings under the fields. An algorithm's
own hyper-parameters are a dataclass in its own file, a data format's in its own.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic_core import core_schema

PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
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


@dataclass(frozen=True)
class TextEncoding:
    """For `Annotated`: the name of an encoding in which a line ends with the byte that ends it in ASCII."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def _check(self, name: str) -> str:
        try:
            ends = "\n".encode(name)
        except (LookupError, UnicodeError):
            ends = b""
        if ends != b"\n":
            raise ValueError("must be an encoding of text such as utf-8, cp1252 or latin-1 (UTF-16 is seen by itself)")
        return codecs.lookup(name).name


@dataclass(kw_only=True)
class ModelConfig:
    """What every model has: where its weights come from and the numbers it computes in."""

    path: Annotated[str, Field(min_length=1)]
    """Where the model is: a hub id, a local folder, `package://<package>/<file>`, or `run://<run directory>`."""
    kind: str
    """What sort of model it is, which decides how it is opened and evaluated: encoder, cross_encoder, decoder,
    encoder_decoder, or a kind from outside the package."""
    revision: str | None = None
    """The commit, tag or branch of a model on the hub; null takes the newest."""
    precision: Precision = "auto"
    """The numbers it computes in, under autocast; weights being trained stay fp32. `auto` is bf16 where the hardware
    has it, and fp32 elsewhere."""
    attn_implementation: str | None = None
    """The attention that transformers computes with, such as sdpa, eager or flash_attention_2; null lets it choose."""
    init: Literal["pretrained", "random"] = "pretrained"
    """`random` gives the architecture at `path` (or `architecture`) fresh weights, to train from scratch."""
    architecture: dict[str, Any] | None = None
    """Fields of the model's Hugging Face config, for `init: random` without a pretrained folder."""


@dataclass(kw_only=True)
class LoraConfig:
    """Low-rank adapters (Hu et al. 2021), through `peft`."""

    r: PositiveInt = 16
    """The rank of the adapters."""
    alpha: PositiveInt = 32
    """The adapters' output is scaled by alpha / r; twice the rank is usual."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """The share of an adapter's inputs that is dropped in training, as in QLoRA (Dettmers et al. 2023)."""
    target_modules: str | list[str] = "all-linear"
    """The layers that get adapters: all linear ones but the last, as QLoRA does, or those whose names are listed. A
    reranker's head is trained whole."""


@dataclass(kw_only=True)
class EncoderConfig(ModelConfig):
    """A text encoder and everything that decides what `s(q, p)` is. `None`/`auto`: as the model's folder says."""

    kind: Literal["encoder"] = "encoder"
    pooling: Literal["auto", "mean", "cls", "last"] = "auto"
    """How the vectors of the tokens become one: their mean, the first, or the last; `auto` is as the model's folder
    says."""
    similarity: Literal["auto", "cosine", "dot"] = "auto"
    """How two vectors are compared; `auto` is as the model's folder says."""
    query_prefix: str | None = None
    """A text that stands before every question; null is as the model's folder says."""
    passage_prefix: str | None = None
    """A text that stands before every passage; null is as the model's folder says."""
    max_query_length: PositiveInt | None = None
    """Tokens of a question at most, and longer ones are cut; null is as the model's folder says."""
    max_passage_length: PositiveInt | None = None
    """Tokens of a passage at most, and longer ones are cut; null is as the model's folder says."""
    batch_size: PositiveInt = 64
    """Texts are embedded so many at a time when a corpus is."""
    padding_side: Literal["left", "right"] | None = None
    """Where shorter texts of a batch are filled up; null is as the tokenizer says."""
    append_eos: bool = False
    """Put the end token after every text, where the tokenizer does not do so itself; the model's folder may ask for it
    as well."""
    dimension: PositiveInt | None = None
    """Keep the first `dimension` components of a vector only (Matryoshka); null keeps all."""
    lora: LoraConfig | None = None
    """Train low-rank adapters and keep the model itself as it is; null trains the whole model."""


@dataclass(kw_only=True)
class CrossEncoderConfig(ModelConfig):
    """A reranker: it reads question and passage together and gives the pair one logit."""

    kind: Literal["cross_encoder"] = "cross_encoder"
    form: Literal["auto", "head", "yes_no"] = "auto"
    """Where the logit comes from: a `head` on an encoder, or a language model's logit of `yes` against that of `no`
    (Qwen3-Reranker); `auto` is as the model's folder says, and an encoder without a head gets a new one."""
    max_length: PositiveInt | None = None
    """Tokens of question and passage together, and longer pairs are cut; null is as the model's folder says, 512 at
    most."""
    batch_size: PositiveInt = 32
    """Pairs are scored so many at a time."""
    instruction: str | None = None
    """What `form: yes_no` tells the language model a good passage is; null is as the model's folder says, else
    Qwen3-Reranker's own."""
    lora: LoraConfig | None = None
    """Train low-rank adapters and keep the model itself as it is; null trains the whole model."""


@dataclass(kw_only=True)
class FidSettings:
    """How a reader encodes each passage independently (Fusion-in-Decoder). Saved with the model, which learnt it so."""

    passage_tokens: PositiveInt = 250
    """Tokens of one passage, for an encoder-decoder with the question beside it; 250 is as published."""
    question_with_passage: bool = True
    """A decoder LM sees the question before each passage too, as published; without it, passage states are reusable."""
    sub_batch_size: PositiveInt = 16
    """Passages of similar length are encoded so many at a time."""
    reuse_mb: NonNegativeInt = 1024
    """Megabytes for the passage states that several questions share when answering; 0 keeps none."""


@dataclass(kw_only=True)
class ReaderConfig(ModelConfig):
    """A language model that reads passages and answers: a decoder or an encoder-decoder."""

    kind: Literal["decoder", "encoder_decoder"] = "decoder"
    max_input_length: PositiveInt | None = None
    """Tokens of prompt and answer together (decoder), or of one passage's input (FiD).

    Null is the model's own limit, 2048 at most."""
    max_new_tokens: PositiveInt | None = None
    """Tokens an answer may have. Null is those of the longest training answer and a quarter more, between 32 and 512;
    32 for a reader that is not trained."""
    batch_size: PositiveInt = 16
    """Prompts are answered so many at a time."""
    chat_template: Literal["auto", "none"] = "auto"
    """`auto` is the tokenizer's where it has one, the documented plain template elsewhere; `none` is the plain one."""
    instruction: str | None = None
    """A text that replaces the default instruction in the prompt."""
    template_date: Annotated[str, Matching(r"\d{4}-\d\d-\d\d", "a date such as 2024-07-26")] | None = None
    """The date that a chat template prints as today's; null is the one the model was trained with, else 2024-07-26.
    It is never the clock's: a prompt must not change overnight."""
    lora: LoraConfig | None = None
    """Train low-rank adapters and keep the model itself as it is; null trains the whole model."""
    load_in_4bit: bool = False
    """Keep the frozen weights in four bits (bitsandbytes, on a GPU), which needs `lora` to train."""
    fid: FidSettings | None = None
    """Encode each passage independently, with one answer over all; null puts all passages into one prompt."""


@dataclass(kw_only=True)
class RetrieverConfig:
    """How passages are found."""

    type: str = "faiss"
    """What sort of retriever it is: faiss, bm25, hybrid, or a kind from outside the package."""
    k: PositiveInt = 4
    """Passages a reader gets. How deep retrieval is evaluated is `evaluation.depth`."""
    encoder: EncoderConfig | None = None
    """The encoder to search with, where the run trains a reader; null is the encoder being trained."""
    reranker: CrossEncoderConfig | None = None
    """The model that puts the first `rerank_depth` passages into a new order; null leaves them in the retriever's."""
    rerank_depth: PositiveInt = 20
    """Passages of a question that are reranked; those below keep their order."""
    rerank_batch_size: PositiveInt | None = None
    """Pairs of question and passage are scored so many at a time; null is the reranker's own `batch_size`."""
    index: Literal["flat", "ivf", "hnsw"] = "flat"
    """The FAISS index: `flat` is exact, `ivf` searches in inverted lists, `hnsw` walks a graph."""
    nlist: PositiveInt | None = None
    """Inverted lists of an ivf index; null is four times the square root of the number of passages."""
    nprobe: PositiveInt = 16
    """Inverted lists that an ivf index looks into for a question: more find more and take longer."""
    hnsw_m: PositiveInt = 32
    """Neighbours of a passage in an hnsw graph: more find more and take more memory."""
    ef_construction: PositiveInt = 200
    """Candidates that are looked at when a passage is put into an hnsw graph."""
    ef_search: PositiveInt = 128
    """Candidates that are looked at when an hnsw graph is searched."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where FAISS searches; `auto` is the GPU where FAISS sees one and the index can be there."""
    bm25_k1: PositiveFloat = 1.5
    """How soon further occurrences of a word stop to count in BM25; 1.5 is the usual value."""
    bm25_b: Fraction = 0.75
    """How much BM25 allows for a passage's length; 0.75 is the usual value."""
    fusion: Literal["rrf", "weighted"] = "rrf"
    """How the lists of a hybrid become one: by reciprocal rank, which needs no common scale, or by weighted scores."""
    rrf_k: PositiveInt = 60
    """The constant of reciprocal rank fusion, 1 / (rrf_k + rank); 60 is that of Cormack et al. 2009."""
    dense_weight: Fraction = 0.5
    """The vectors' share in `fusion: weighted`; the rest is BM25's."""


@dataclass(kw_only=True)
class DataConfig:
    """What every data format has."""

    format: str
    """The name of the format, which decides how `path` is read."""
    path: str | None = None
    """The folder or file that holds the data; data that is made here has none."""
    encoding: Annotated[str, TextEncoding()] = "utf-8"
    """How the letters of text files are written: cp1252 is what Windows wrote in Western Europe. UTF-16 is seen by
    itself."""
    titles: bool = True
    """Passages have their titles; false leaves them out, where the answer would stand in one."""
    dev_fraction: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """The share of train that becomes dev where there is no dev; questions on one passage stay together."""
    test_fraction: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """The share of train that becomes test where there is no test."""
    split_seed: NonNegativeInt = 0
    """The seed of the split made where dev or test is missing. It is not `seed`: runs with other seeds must compare."""
    query_history: Literal["none", "user", "all"] = "user"
    """Which earlier turns stand before the question in the retrieval query."""
    max_train: PositiveInt | None = None
    """Take a seeded sample of so many training questions; null takes all."""
    max_dev: PositiveInt | None = None
    """Take a seeded sample of so many dev questions; null takes all."""
    max_test: PositiveInt | None = None
    """Take a seeded sample of so many test questions; null takes all."""


@dataclass(kw_only=True)
class EvaluationConfig:
    """When and how deep to evaluate."""

    zero_shot: bool = True
    """Evaluate before training as well, so that a run shows what training changed."""
    splits: list[Literal["dev", "test"]] = field(default_factory=lambda: ["dev", "test"])
    """The splits that are evaluated before training and at the end."""
    depth: PositiveInt = 20
    """Passages retrieved per question when retrieval is measured, clamped to the corpus."""
    cutoffs: list[PositiveInt] = field(default_factory=lambda: [1, 4, 20])
    """The ranks k of `recall@k` and `hit@k`; 1 and 4 are always among them."""
    baselines: list[str] = field(default_factory=lambda: ["bm25"])
    """Retrievers without an encoder, by type, that are measured beside an encoder that is trained; `[]`: none."""
    max_questions: PositiveInt | None = None
    """Evaluate on a seeded subset of so many questions before and during training; the final evaluation takes all."""
    bootstrap: NonNegativeInt = 1000
    """Resamples behind `…_ci_low` and `…_ci_high`; 0 leaves them out."""
    oracle: bool = False
    """Measure a reader with the gold passages as well, as `oracle_…`: an upper bound."""
    bleu: bool = False
    """Measure a reader's answers by BLEU as well, which is for answers of whole sentences."""
    num_beams: PositiveInt = 1
    """Beams that a reader decodes with; 1 is greedy decoding."""
    latency: NonNegativeInt = 16
    """Ask a reader so many questions one by one at the final evaluation, for the median and 95th percentile of their
    time; 0 leaves it out."""


@dataclass(kw_only=True)
class TrackingConfig:
    """Weights & Biases, or nothing. `metrics.jsonl` is written always."""

    backend: Literal["wandb", "none"] = "wandb"
    """Where the run reports to, beside the files in its directory."""
    mode: Literal["auto", "online", "offline"] = "auto"
    """`auto` is online where a key is found (WANDB_API_KEY or netrc), and offline elsewhere; it respects WANDB_MODE."""
    project: str = "rag_experiments"
    """The project that the run is shown in."""
    entity: str | None = None
    """The user or team that the project belongs to; null is your default."""
    group: str | None = None
    """The runs that this one is shown together with; null is the sweep's name in a sweep, and no group elsewhere."""
    tags: list[str] = field(default_factory=list)
    """Tags of the run, beside those that it gets of itself."""
    log_model: bool = False
    """Upload the run's `model/` as an artifact."""
    table_rows: NonNegativeInt = 200
    """Predictions that are shown as a table; 0 shows none."""


@dataclass(kw_only=True)
class SweepConfig:
    """What a multirun does when a job fails, and when it is started again."""

    on_error: Literal["continue", "stop"] = "continue"
    """What a failed job does to the sweep: the others go on, or the first failure ends it."""
    retry_failed: bool = True
    """When the sweep is started again, failed jobs run again, from their checkpoint where there is one; false leaves
    them."""
    reuse_completed: bool = True
    """Jobs with the same configuration and data return their result at once; false runs them again beside it."""
    same_code: bool = False
    """Reuse no result that another git commit made."""
    metric: str | None = None
    """What is shown and searched by; null is `trainer.metric_for_best_model`."""
    name: str | None = None
    """The sweep's name, which it sets itself, for `status.json` and the tracker."""
    job: str | None = None
    """The job's name in its sweep, which the sweep sets itself."""
    study: str | None = None
    """Where the study of a search is kept, which the search sets itself, for pruning."""
    trial: NonNegativeInt | None = None
    """The number of this trial in its search, which the search sets itself."""


@dataclass(kw_only=True)
class PathsConfig:
    """Where things are written."""

    outputs: str = "outputs"
    """The folder of runs, at `<algorithm>/<date>_<time>_<name>` below it."""
    sweeps: str = "multirun_sweeps"
    """The folder of sweeps, each at its name below it."""
    cache: str = "~/.cache/rag_experiments"
    """The folder of what is kept between runs: imported data, vectors, scores. The environment variable
    RAG_EXPERIMENTS_CACHE names another one."""


@dataclass(kw_only=True)
class RunConfig:
    """One checked run. `algorithm` is the algorithm's own dataclass, `trainer` the given TrainingArguments."""

    seed: NonNegativeInt = 0
    """The seed of everything that is drawn in a run, but for the split of the data."""
    name: str
    """The run's name, a part of its directory's; by default it is the chosen model and data."""
    resume: str | None = None
    """The run directory that is to go on, or `auto`: the newest unfinished run of this configuration."""
    plan: bool = False
    """Check everything, say what would happen, and stop before anything is written."""
    refit: bool = False
    """Dev chooses the number of steps; then the model is trained anew on train and dev, and test is measured once."""
    keep: Literal["trained", "base"] = "trained"
    """`base`: the model before training is saved where the trained one is worse on dev by the paired test."""
    early_stopping: PositiveInt | None = None
    """Training ends after so many evaluations without a better `trainer.metric_for_best_model`; null: it does not."""
    model: Any
    """The model that is trained: a `ModelConfig` of the kind that `model.kind` names."""
    algorithm: Any
    """The algorithm's hyper-parameters: the `Config` of its trainer class."""
    data: DataConfig
    """The questions and passages, and how they are read."""
    retriever: RetrieverConfig
    """How passages are found."""
    trainer: dict[str, Any]
    """How the model is trained: fields of `transformers.TrainingArguments`."""
    evaluation: EvaluationConfig
    """When and how deep to evaluate."""
    tracking: TrackingConfig
    """Where the run reports to."""
    sweep: SweepConfig
    """What a sweep of such runs does."""
    paths: PathsConfig
    """Where things are written."""

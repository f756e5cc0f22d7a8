"""Reads an offline `.wandb` file back: a LevelDB log of protobuf records behind a seven-byte header."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

BLOCK = 32 * 1024


def records(path: Path) -> list[Any]:
    """The records of one `.wandb` file, in order."""
    data = path.read_bytes()
    assert data[:4] == b":W&B", path
    position, found, parts = 7, [], b""
    while position + 7 <= len(data):
        if BLOCK - position % BLOCK < 7:
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a full record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            found.append(record)
            parts = b""
    return found


def read_back(directory: Path) -> dict[str, Any]:
    """What the one segment below `directory` says: id, group, name, tags, config, history, summary, exit code.

    wandb's service writes the end of a file up to a second after `finish()` returned: waited for here.
    """
    files = list(directory.rglob("*.wandb"))
    assert len(files) == 1, files
    for _ in range(100):
        if any(record.WhichOneof("record_type") == "exit" for record in records(files[0])):
            break
        time.sleep(0.1)
    read: dict[str, Any] = {
        "history": [],
        "summary": {},
        "config": {},
        "exit_code": None,
        "metrics": {},
        "artifacts": [],
    }
    for record in records(files[0]):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            read |= {"id": run.run_id, "group": run.run_group, "name": run.display_name, "tags": list(run.tags)}
            read["project"] = run.project
            read["config"] |= {item.key: json.loads(item.value_json) for item in run.config.update if item.key}
        elif kind == "config":
            read["config"] |= {item.key: json.loads(item.value_json) for item in record.config.update if item.key}
        elif kind == "history":
            read["history"].append({_name(item): json.loads(item.value_json) for item in record.history.item})
        elif kind == "summary":
            read["summary"] |= {_name(item): json.loads(item.value_json) for item in record.summary.update}
        elif kind == "metric":
            read["metrics"][record.metric.name or record.metric.glob_name] = record.metric
        elif kind == "artifact":
            read["artifacts"].append(record.artifact)
        elif kind == "exit":
            read["exit_code"] = record.exit.exit_code
    return read


def _name(item: Any) -> str:
    return item.key or "/".join(item.nested_key)

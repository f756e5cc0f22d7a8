"""Nearest vectors by inner product, with FAISS (Douze et al. 2024): exact, inverted lists, or a graph.

Cosine is the inner product of unit vectors, and an encoder with cosine similarity returns unit vectors, so the index
always searches by the similarity that was trained. The only file that imports `faiss`.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np

from rag_experiments.config.schema import RetrieverConfig
from rag_experiments.core.errors import RequestError

BLOCK = 65_536
"""Vectors added at a time: bounds the memory beside the index when they come from a memory map."""

POINTS_PER_LIST = 39
"""FAISS's own lower bound of training points a list."""

GPU_DEPTH = 2048
"""Passages of a list that FAISS finds on a GPU at most."""

_FILE = "index.faiss"


class Index(ABC):
    """Vectors in, nearest rows out."""

    @abstractmethod
    def add(self, vectors_ND: np.ndarray) -> None:
        """Append vectors; their rows go on from the last."""

    @abstractmethod
    def search(self, queries_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores float32 and rows int64, both `[Q, k]`, best first; row -1 and score -inf where there are fewer."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the index into `folder`."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""


def library_version() -> str:
    """Of FAISS: another one may build other lists and graphs."""
    return faiss.__version__


class FaissIndex(Index):
    """`flat` is exact. `ivf` looks into `nprobe` of `nlist` lists; `hnsw` walks a graph (Malkov & Yashunin 2016)."""

    def __init__(self, index: Any, kind: str) -> None:
        self.kind = kind
        self._index = index

    @classmethod
    def build(cls, vectors_ND: np.ndarray, config: RetrieverConfig) -> FaissIndex:
        """An index over `vectors_ND` (an array or a memory map), trained on a seeded sample where its kind needs that.

        Raises `RequestError` for more lists than vectors, or a GPU that is not there.
        """
        count, dimension = vectors_ND.shape
        index = _on_device(_empty(config, count, dimension), config)
        if not index.is_trained:
            size = min(count, 256 * index.nlist)
            sample = np.sort(np.random.default_rng(0).choice(count, size=size, replace=False))
            index.train(np.ascontiguousarray(vectors_ND[sample], dtype=np.float32))
        built = cls(index, config.index)
        built.add(vectors_ND)
        return built

    @property
    def size(self) -> int:
        """Vectors held."""
        return self._index.ntotal

    def add(self, vectors_ND: np.ndarray) -> None:
        """Append vectors. Raises `ValueError` for one that is not finite: it would be found everywhere or nowhere."""
        for start in range(0, len(vectors_ND), BLOCK):
            block = np.ascontiguousarray(vectors_ND[start : start + BLOCK], dtype=np.float32)
            if not np.isfinite(block).all():
                raise ValueError("a passage's vector is not finite: the encoder's weights have diverged")
            self._index.add(block)

    def search(self, queries_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Index.search`."""
        queries_QD = np.ascontiguousarray(queries_QD, dtype=np.float32)
        most = min(self.size, GPU_DEPTH) if _is_on_gpu(self._index) else self.size
        if self.kind != "flat" or k >= most:
            return self._search(queries_QD, k)
        scores_QK, rows_QK = np.empty((len(queries_QD), k), np.float32), np.empty((len(queries_QD), k), np.int64)
        # FAISS keeps any of those that tie at the end of a list: it is asked for more until the tie ends.
        open_Q, depth = np.arange(len(queries_QD)), k + 1
        while len(open_Q):
            longer_QL, longer_rows_QL = self._search(queries_QD[open_Q], depth)
            scores_QK[open_Q], rows_QK[open_Q] = longer_QL[:, :k], longer_rows_QL[:, :k]
            tied_Q = (longer_QL[:, -1] == longer_QL[:, k - 1]) & (depth < most)
            open_Q, depth = open_Q[tied_Q], min(4 * depth, most)
        return scores_QK, rows_QK

    def _search(self, queries_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """What FAISS finds; of equal scores the lower row first."""
        scores_QK, rows_QK = self._index.search(queries_QD, k)
        scores_QK = np.where(rows_QK < 0, np.float32(-np.inf), scores_QK)
        order_QK = np.lexsort((np.where(rows_QK < 0, self.size, rows_QK), -scores_QK), axis=1)
        return np.take_along_axis(scores_QK, order_QK, 1), np.take_along_axis(rows_QK, order_QK, 1).astype(np.int64)

    def save(self, folder: Path) -> None:
        """`index.faiss`, which `faiss.read_index` opens, and what it is in `index.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        index = faiss.index_gpu_to_cpu(self._index) if _is_on_gpu(self._index) else self._index
        faiss.write_index(index, str(folder / _FILE))
        facts = {"kind": self.kind, "size": self.size, "dimension": index.d, "metric": "inner_product"}
        (folder / "index.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, config: RetrieverConfig | None = None) -> FaissIndex:
        """Read what `save` wrote; `config` gives search parameters and device."""
        facts = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        index = faiss.read_index(str(folder / _FILE))
        if config is not None:
            _set_search_parameters(index, config)
            index = _on_device(index, config)
        return cls(index, facts["kind"])

    def vectors(self) -> np.ndarray | None:
        """The vectors of an exact index on the CPU, `[N, D]`, without a copy; `None` for the other kinds."""
        if self.kind != "flat" or _is_on_gpu(self._index):
            return None
        flat: Any = faiss.downcast_index(self._index)
        return np.asarray(_Held(self._index, faiss.rev_swig_ptr(flat.get_xb(), self.size * flat.d))).reshape(-1, flat.d)


class _Held:
    """An index's own memory as an array that keeps the index: freed with it, the array would read anything."""

    def __init__(self, index: Any, array: np.ndarray) -> None:
        self.index = index
        self.__array_interface__ = array.__array_interface__


def default_lists(count: int) -> int:
    """Lists for `count` vectors: 4·√N, fewer where they would be too thin to train."""
    return max(1, min(round(4 * math.sqrt(count)), count // POINTS_PER_LIST))


def _empty(config: RetrieverConfig, count: int, dimension: int) -> Any:
    """An index without vectors, its parameters set."""
    if config.index == "flat":
        return faiss.IndexFlatIP(dimension)
    index: Any
    if config.index == "hnsw":
        index = faiss.IndexHNSWFlat(dimension, config.hnsw_m, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = config.ef_construction
    else:
        lists = config.nlist or default_lists(count)
        if lists > count:
            raise RequestError(f"retriever.nlist: {lists} lists for {count} passages; at most one per passage.")
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dimension), dimension, lists, faiss.METRIC_INNER_PRODUCT)
        index.cp.min_points_per_centroid = 1  # few points a list are the user's choice, not worth FAISS's warning
    _set_search_parameters(index, config)
    return index


def _set_search_parameters(index: Any, config: RetrieverConfig) -> None:
    if hasattr(index, "hnsw"):
        index.hnsw.efSearch = config.ef_search
    elif hasattr(index, "nlist"):
        index.nprobe = min(config.nprobe, index.nlist)


def _on_device(index: Any, config: RetrieverConfig) -> Any:
    """The index on a GPU where one is asked for, or where there is one and FAISS can use it."""
    gpus = faiss.get_num_gpus() if hasattr(faiss, "StandardGpuResources") else 0
    if config.device == "gpu":
        if not gpus:
            raise RequestError("retriever.device: gpu, but FAISS sees none (it needs faiss-gpu-cu12); use cpu or auto.")
        if config.index == "hnsw":
            raise RequestError("retriever.device: FAISS has no hnsw on a GPU; use retriever=faiss_flat or device cpu.")
    if config.device == "cpu" or not gpus or config.index == "hnsw":
        return index
    import torch

    resources = faiss.StandardGpuResources()
    moved: Any = faiss.index_cpu_to_gpu(resources, torch.cuda.current_device(), index)
    moved.resources = resources  # FAISS does not keep them alive itself
    return moved


def _is_on_gpu(index: Any) -> bool:
    return type(index).__name__.startswith("GpuIndex")

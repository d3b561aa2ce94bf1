"""Fixtures of the tests of training: a tiny data set, tiny base models, and what is mined from five passages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from langchain_crossrerank.training.data import TrainingData, TrainingExample
from tests.unit.training.tiny_runs import save_bi_encoder, write_animals

PASSAGES = [
    "The heron is a bird that waits in shallow water.",
    "The heron hunts fish in shallow water at dawn.",
    "A ferry crosses the water to the island at nine.",
    "Bread needs flour, water, salt and time.",
    "The stork is a bird that nests on roofs.",
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Run torch, if it is there, on one thread: tiny models are faster without a second one to wait for."""
    try:
        import torch
    except ImportError:
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def data_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty queries on animals."""
    return write_animals(tmp_path_factory.mktemp("data") / "animals.jsonl")


@pytest.fixture(scope="session")
def bi_encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT bi-encoder."""
    return save_bi_encoder(tmp_path_factory.mktemp("models") / "bi-encoder")


@pytest.fixture(params=["sequence classifier", "warm start"])
def base(request: pytest.FixtureRequest) -> Path:
    """A base model of each kind that can be trained."""
    name = "tiny_model_folder" if request.param == "sequence classifier" else "bi_encoder_folder"
    folder: Path = request.getfixturevalue(name)
    return folder


@pytest.fixture
def passages() -> list[str]:
    """Five passages, two of them on herons."""
    return list(PASSAGES)


@pytest.fixture
def mine_herons() -> Callable[..., Any]:
    """A function that mines one query on herons from the passages and a near-copy of its positive."""
    mining = pytest.importorskip("langchain_crossrerank.training.mining", reason="needs the training extra")

    def mine_herons(answers: tuple[str, ...] = (), **options: Any) -> Any:
        example = TrainingExample("heron bird in shallow water", (PASSAGES[0],), answers=answers)
        copy = PASSAGES[0].replace("waits", "stands")
        return mining.mine(TrainingData([example], {"": [*PASSAGES, copy]}), **options)[""]

    return mine_herons

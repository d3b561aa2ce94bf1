"""A training run from data to a folder without torch, on tiny models: what is learnt, resumed, stopped and refused."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the training extra")
transformers = pytest.importorskip("transformers", reason="needs the training extra")

from langchain_crossrerank import load_cross_encoder  # noqa: E402
from langchain_crossrerank.cross_encoders.model_files import BUNDLED_FOLDER  # noqa: E402
from langchain_crossrerank.errors import InvalidInputError, ModelNotFoundError, UnsupportedModelError  # noqa: E402
from langchain_crossrerank.training import TrainingResult, train  # noqa: E402
from langchain_crossrerank.training.loss import ranking_loss  # noqa: E402
from langchain_crossrerank.training.models import WarmStartModel, load_trainable  # noqa: E402
from langchain_crossrerank.training.platt import fit_platt  # noqa: E402
from langchain_crossrerank.training.trainer import TrainingSettings  # noqa: E402
from langchain_crossrerank.training.warm_start import WarmStartConfig, WarmStartCrossEncoder  # noqa: E402

SETTINGS = TrainingSettings(
    steps=30, groups_per_step=4, negatives=3, warmup=5, learning_rate=5e-3, validate_every=10, average=0.8
)
ANIMALS = ["heron", "stork", "otter", "badger", "falcon", "salmon", "beetle", "lizard", "weasel", "pigeon"]
DEEDS = ["eats", "hunts", "sleeps", "swims", "nests", "hides"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models are quicker, and as quick on a busy machine, without a second thread to wait for."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty queries whose positive names the animal and the deed, beside passages that name one of them."""
    file = tmp_path_factory.mktemp("data") / "animals.jsonl"
    rows = [
        {"query": f"when the {animal} {deed}", "positive": f"The {animal} {deed} in the morning."}
        for animal in ANIMALS
        for deed in DEEDS
    ]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def bi_encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random BERT encoder with the bundled model's vocabulary."""
    return make_bi_encoder(tmp_path_factory.mktemp("models") / "bi-encoder")


def make_bi_encoder(folder: Path) -> Path:
    """Save a two-layer BERT encoder with random weights."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, max_position_embeddings=128
    )
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes((BUNDLED_FOLDER / "tokenizer.json").read_bytes())
    return folder


def run(data_file: Path, folder: Path, base: Path, **options: Any) -> TrainingResult:
    """Train with the settings of this module, or with some of them changed."""
    settings = {key: options.pop(key) for key in list(options) if hasattr(SETTINGS, key)}
    return train(
        [data_file],
        folder,
        base=base,
        settings=dataclasses.replace(SETTINGS, **settings),
        **{"max_length": 48, "held_apart": 0.3, "show_progress": False, **options},
    )


@pytest.fixture(params=["sequence classifier", "warm start"])
def base(request: pytest.FixtureRequest, tiny_model_folder: Path, bi_encoder_folder: Path) -> Path:
    """A base of each shape that can be trained."""
    return tiny_model_folder if request.param == "sequence classifier" else bi_encoder_folder


def test_training_learns_and_exports(data_file: Path, base: Path, tmp_path: Path) -> None:
    """The loss falls, what is exported is the best validation's weights, and it loads without torch."""
    result = run(data_file, tmp_path / "out", base, steps=40)
    losses = [row["loss"] for row in result.log if "loss" in row]
    assert len(losses) == 40
    assert sum(losses[-10:]) < sum(losses[:10])
    validations = [row["nDCG@10"] for row in result.log if "nDCG@10" in row]
    assert result.start == validations[0]
    assert result.ndcg == max(validations) >= result.start
    assert result.examples + result.held_apart <= 60
    script = (
        "import sys; from langchain_crossrerank import load_cross_encoder;"
        f"print(load_cross_encoder({str(result.folder)!r}).score([('when the heron eats', 'The heron eats.')])[0]);"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert 0 <= float(done.stdout) <= 1


def test_a_trained_folder_can_be_trained_on(data_file: Path, base: Path, tmp_path: Path) -> None:
    """What training wrote scores alike in torch and in the graph, and is itself a base to start from."""
    first = run(data_file, tmp_path / "first", base, steps=10)
    pairs = [("when the heron eats", "The heron eats in the morning."), ("stork", "A ferry.")]
    trainable = load_trainable(first.folder, max_length=48)
    trainable.network.eval()
    with torch.inference_mode():
        expected = trainable.logits(pairs).tolist()
    exported = load_cross_encoder(str(first.folder), activation="identity")
    assert exported.score(pairs) == pytest.approx(expected, abs=1e-3)
    second = run(data_file, tmp_path / "second", first.folder, steps=10)
    assert second.start == pytest.approx(first.ndcg, abs=1e-6)


def test_a_finished_run_is_only_exported_again(data_file: Path, base: Path, tmp_path: Path) -> None:
    """The same call into another folder with the same run folder gives the same model without a step."""
    one = run(data_file, tmp_path / "one", base, steps=10, run_folder=tmp_path / "run")
    two = run(data_file, tmp_path / "two", base, steps=10, run_folder=tmp_path / "run")
    assert one.log == two.log
    pairs = [("when the heron eats", "The heron eats in the morning.")]
    assert load_cross_encoder(str(one.folder)).score(pairs) == load_cross_encoder(str(two.folder)).score(pairs)


def test_training_stops_when_nothing_gets_better(data_file: Path, base: Path, tmp_path: Path) -> None:
    """After `patience` validations without a better nDCG@10 no further step is made."""
    result = run(data_file, tmp_path / "out", base, learning_rate=1e-12, validate_every=2, patience=2)
    assert max(row["step"] for row in result.log) == 4
    assert result.ndcg == result.start


def test_two_runs_are_equal(data_file: Path, base: Path, tmp_path: Path) -> None:
    """The same data, base, settings and seed give the same log; another seed gives another."""
    logs = [
        [{**row, "seconds": 0} for row in run(data_file, tmp_path / name, base, steps=6, seed=seed).log]
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert logs[0] == logs[1] != logs[2]


def test_distillation_keeps_the_start(data_file: Path, bi_encoder_folder: Path, tmp_path: Path) -> None:
    """With a heavy distillation term the last step's scores are nearer to the starting model's than without."""
    pairs = [(f"when the {animal} hides", f"The {animal} swims in the morning.") for animal in ANIMALS]

    def spread(weights: dict[str, Any]) -> list[float]:
        model = load_trainable(bi_encoder_folder, max_length=48)
        model.network.load_state_dict(weights, strict=False)
        model.network.eval()
        with torch.inference_mode():
            scores = model.logits(pairs)
        return (scores - scores[0]).tolist()

    shifts = []
    for weight in (0.0, 50.0):
        name = f"out{weight}"
        run(data_file, tmp_path / name, bi_encoder_folder, steps=20, distillation=weight, calibration=0.0)
        saved = torch.load(tmp_path / f"{name}.run" / "checkpoint.pt", weights_only=True)["trained"]
        shifts.append(sum(abs(a - b) for a, b in zip(spread({}), spread(saved), strict=True)))
    assert shifts[1] < shifts[0] / 2


def test_the_start_can_be_kept_in_part(data_file: Path, base: Path, tmp_path: Path) -> None:
    """With `keep_start`, every trained weight but the rescaled head's stands that much nearer to where it began."""
    weights = []
    for name, share in (("none", 0.0), ("part", 0.4)):
        options = {"run_folder": tmp_path / "run", "keep_start": share, "max_length": 48}
        result = run(data_file, tmp_path / name, base, steps=40, **options)
        weights.append(load_trainable(tmp_path / name, max_length=48).network.state_dict())
        validations = [row["nDCG@10"] for row in result.log if "nDCG@10" in row]
        assert result.ndcg == pytest.approx(validations[-1] if share else max(validations), abs=1e-6)
    torch.manual_seed(SETTINGS.seed)
    model = load_trainable(base, max_length=48)
    compared = 0
    for name, start in model.network.state_dict().items():
        whole, part = weights[0][name], weights[1][name]
        if ".layers." in f".{name}" or ".layer." in name:
            assert torch.allclose(part, whole + 0.4 * (start - whole), atol=1e-6)
            compared += not torch.equal(whole, start)
    assert compared


def test_kept_starts_are_exported_again_alike(data_file: Path, base: Path, tmp_path: Path) -> None:
    """Exporting a finished run with `keep_start` once more gives the same model and the same log."""
    options = {"run_folder": tmp_path / "run", "keep_start": 0.3, "steps": 6}
    logs = [run(data_file, tmp_path / name, base, **options).log for name in ("one", "two")]
    assert logs[0] == logs[1]
    pair = [("when the heron eats", "The heron eats in the morning.")]
    first, second = (load_cross_encoder(str(tmp_path / name)).score(pair) for name in ("one", "two"))
    assert first == second


def test_rescaling_changes_every_logit_alike(base: Path) -> None:
    """After `rescale(2, 1)` each logit is twice what it was, and one more."""
    model = load_trainable(base, max_length=48)
    model.network.eval()
    pairs = [("when the heron eats", "The heron eats in the morning."), ("stork", "A ferry crosses."), ("a", "")]
    with torch.inference_mode():
        before = model.logits(pairs)
        model.rescale(2.0, 1.0)
        assert torch.allclose(model.logits(pairs), 2 * before + 1, atol=1e-4)


def test_platt_scaling_finds_the_line() -> None:
    """Logits off by a known line are put right, for the wanted prior; where there is nothing to fit they stay."""
    draw = torch.Generator().manual_seed(0)
    true = 3 * torch.randn(4000, generator=draw)
    relevant = (torch.rand(4000, generator=draw) < torch.sigmoid(true)).tolist()
    share = sum(relevant) / len(relevant)
    factor, shift = fit_platt((true / 2 - 3).tolist(), relevant, prior=share)
    assert (factor, shift) == (pytest.approx(2.0, abs=0.2), pytest.approx(6.0, abs=0.6))
    assert fit_platt((true / 2 - 3).tolist(), relevant, prior=share / 2)[1] < shift - 0.5
    assert fit_platt([1.0, 2.0], [True, True], prior=0.3) == (1.0, 0.0)
    assert fit_platt([], [], prior=0.3) == (1.0, 0.0)
    assert fit_platt([2.0, -2.0] * 20, [False, True] * 20, prior=0.5)[0] > 0


def test_a_resumed_run_needs_the_same_settings(data_file: Path, base: Path, tmp_path: Path) -> None:
    """A run folder that was begun otherwise is refused by the setting's name; its end may be moved."""
    run(data_file, tmp_path / "one", base, steps=4, run_folder=tmp_path / "run")
    with pytest.raises(InvalidInputError, match=r"was begun with learning_rate=0.005, not 0.1; resume it"):
        run(data_file, tmp_path / "two", base, steps=4, run_folder=tmp_path / "run", learning_rate=0.1)
    later = run(data_file, tmp_path / "two", base, steps=6, run_folder=tmp_path / "run")
    assert max(row["step"] for row in later.log) == 6


def test_a_resumed_run_needs_the_same_data(data_file: Path, base: Path, tmp_path: Path) -> None:
    """A run is not resumed on other passages, not even where there are as many: the order would be another."""
    run(data_file, tmp_path / "one", base, steps=4, run_folder=tmp_path / "run")
    other = tmp_path / data_file.name
    other.write_text(data_file.read_text(encoding="utf-8").replace("in the morning", "at noon"), encoding="utf-8")
    with pytest.raises(InvalidInputError, match=r"was begun with mined="):
        run(other, tmp_path / "two", base, steps=4, run_folder=tmp_path / "run")


def test_an_output_folder_with_files_is_refused(data_file: Path, base: Path, tmp_path: Path) -> None:
    """Nothing is overwritten: a folder that holds something is refused before anything is done."""
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(InvalidInputError, match="is not an empty folder"):
        run(data_file, tmp_path, base)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("negatives", 0),
        ("groups_per_step", 0),
        ("validate_every", 0),
        ("patience", 0),
        ("max_batch_tokens", 0),
        ("learning_rate", 0),
        ("average", 1.0),
        ("keep_start", 1.0),
        ("keep_start", -0.1),
        ("cooldown", 1.5),
        ("distillation", -1),
    ],
)
def test_settings_out_of_range_are_named(name: str, value: float) -> None:
    """A setting that cannot be is an error with its name and value."""
    with pytest.raises(InvalidInputError, match=f"{name} is {value!r}"):
        TrainingSettings(**{name: value})


def test_the_rate_rises_holds_and_falls() -> None:
    """The learning rate rises through the warmup, holds, and falls to near zero in the cooldown."""
    settings = TrainingSettings(steps=100, warmup=9, cooldown=0.5)
    rates = [settings.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[50] == 1.0
    assert rates[99] == pytest.approx(0.02)


def test_bases_of_unknown_shape_are_refused(tmp_path: Path, data_file: Path) -> None:
    """A causal model, a head of three labels, a folder without weights, and no folder at all: each says what it is."""
    folder = make_bi_encoder(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["GPT2LMHeadModel"]}))
    with pytest.raises(UnsupportedModelError, match=r"GPT2LMHeadModel.*no way here to train"):
        load_trainable(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(UnsupportedModelError, match="cannot be read"):
        load_trainable(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match=r"has no model.safetensors"):
        load_trainable(folder)
    with pytest.raises(ModelNotFoundError):
        load_trainable(tmp_path / "missing")
    with pytest.raises(InvalidInputError, match="max_length is 2"):
        load_trainable(folder, max_length=2)


def test_a_head_of_several_labels_is_refused(tmp_path: Path) -> None:
    """A classifier with more than one label cannot be trained to rank."""
    from tests.conftest import make_tiny_model

    with pytest.raises(UnsupportedModelError, match="has 2 labels"):
        load_trainable(make_tiny_model(tmp_path / "two", num_labels=2))


def test_a_warm_start_begins_as_its_bi_encoder(bi_encoder_folder: Path) -> None:
    """With matching at zero and attention shut, the score is the scaled cosine of the two mean-pooled texts."""
    model = load_trainable(bi_encoder_folder, max_length=48)
    assert isinstance(model, WarmStartModel)
    shut = {"query_opening": -1e4, "passage_opening": -1e4}
    model.network.config = dataclasses.replace(model.network.config, **shut)
    pairs = [("when the heron eats", "The heron eats in the morning."), ("a", "A ferry crosses. " * 30)]
    with torch.no_grad():
        model.network.matching.weight.zero_()
    model.network.eval()
    encoder = transformers.BertModel.from_pretrained(bi_encoder_folder, add_pooling_layer=False).eval()
    with torch.inference_mode():
        for pair, logit in zip(pairs, model.logits(pairs).tolist(), strict=True):
            (entry,) = model.tokenizer.encode_batch([pair])
            split = entry.type_ids.index(1)
            first, second = (
                encoder(torch.tensor([ids])).last_hidden_state.mean(1) for ids in (entry.ids[:split], entry.ids[split:])
            )
            config = model.network.config
            cosine = torch.nn.functional.cosine_similarity(first, second).item()
            assert logit == pytest.approx(config.scale * cosine + config.bias, abs=1e-3)


def test_padding_and_company_do_not_change_a_score(bi_encoder_folder: Path) -> None:
    """A pair scores the same alone and in a batch with longer pairs; empty texts score too."""
    model = load_trainable(bi_encoder_folder, max_length=64)
    with torch.no_grad():
        for value in model.network.reading.parameters():
            value.normal_(std=0.1)
        model.network.pointer.weight.normal_()
    model.network.eval()
    pairs = [("heron", "The heron eats."), ("", "text"), ("heron", ""), ("stork", "long " * 80)]
    with torch.inference_mode():
        together = model.logits(pairs).tolist()
        assert together == pytest.approx([model.logits([pair]).item() for pair in pairs], abs=1e-4)
        assert model.all_logits(pairs, max_batch_tokens=8).tolist() == pytest.approx(together, abs=1e-4)


def test_query_and_passage_meet_only_in_the_upper_layers() -> None:
    """With no joined layer a query's states do not depend on the passage; with one they do."""
    sizes = {"vocab_size": 50, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
    for separate, meets in ((2, False), (1, True)):
        torch.manual_seed(0)
        network = WarmStartCrossEncoder(WarmStartConfig(**sizes, num_hidden_layers=2, separate_layers=separate)).eval()
        inputs = [torch.tensor([[1, 5, 6, 2, 1, last, 2]]) for last in (7, 8)]
        types = torch.tensor([[0, 0, 0, 0, 1, 1, 1]])
        with torch.inference_mode():
            states = [network.encode(ids, torch.ones_like(ids), types)[0][:, :4] for ids in inputs]
        assert torch.allclose(*states, atol=1e-6) is not meets


def test_the_loss_is_what_it_says() -> None:
    """Cross-entropy of the positive, plus the weighted binary term, plus the teacher's cross-entropy."""
    logits = torch.tensor([[2.0, 0.0, -1.0]])
    shares = torch.softmax(logits[0], 0)
    assert ranking_loss(logits, calibration=0).item() == pytest.approx(-shares[0].log().item())
    binary = [2 * -torch.sigmoid(logits[0, 0]).log(), *(-torch.sigmoid(-logits[0, i]).log() for i in (1, 2))]
    calibrated = -shares[0].log().item() + 0.5 * sum(map(float, binary)) / 3
    assert ranking_loss(logits, calibration=0.5).item() == pytest.approx(calibrated)
    teacher = torch.zeros(1, 3)
    distilled = -shares[0].log().item() - 0.3 * shares.log().mean().item()
    assert ranking_loss(logits, calibration=0, teacher=teacher, distillation=0.3).item() == pytest.approx(distilled)

"""Modular models without torch: their modules become layers of the graph, or are named in the error."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from langchain_crossrerank.cross_encoders.head_modules import has_head_modules, read_head
from langchain_crossrerank.cross_encoders.loading import load_cross_encoder
from langchain_crossrerank.errors import ModelNotFoundError, UnsupportedModelError

torch = pytest.importorskip("torch", reason="needs the torch extra")
transformers = pytest.importorskip("transformers", reason="needs the torch extra")
sentence_transformers = pytest.importorskip("sentence_transformers", reason="needs the torch extra")

PAIRS = [
    ("what is lora", "LoRA trains two small matrices next to each frozen weight matrix."),
    ("what is lora", "The ferry to the island leaves at nine."),
    ("who wrote hamlet", "Hamlet is a tragedy by William Shakespeare. " * 40),
    ("who wrote hamlet", ""),
    ("a", "b"),
]


def save(folder: Path, tiny_model: Path, pooling: str) -> Path:
    """Save a tiny model in the shape of the ettin rerankers: a headless graph, and modules as safetensors."""
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling

    torch.manual_seed(0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
    special = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
    config = transformers.ModernBertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=128,
        global_attn_every_n_layers=2,
        local_attention=16,
        initializer_range=0.2,
        **dict.fromkeys(special, 0),
    )
    encoder = transformers.ModernBertModel(config).eval()
    encoder.save_pretrained(folder / "encoder")
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.save_pretrained(folder / "encoder")
    modules = [
        Transformer(str(folder / "encoder")),
        Pooling(32, pooling_mode=pooling),
        Dense(32, 32, activation_function=torch.nn.GELU()),
        LayerNorm(32),
        Dense(32, 1, activation_function=torch.nn.Identity(), module_output_name="scores"),
    ]
    torch.nn.init.normal_(modules[3].norm.weight)
    torch.nn.init.normal_(modules[3].norm.bias)
    model = sentence_transformers.CrossEncoder(modules=modules, device="cpu", activation_fn=torch.nn.Identity())
    model.save_pretrained(str(folder / "model"))
    export(encoder, folder / "model" / "onnx" / "model.onnx")
    return folder / "model"


def export(encoder: Any, file: Path) -> None:
    """Export an encoder without a head."""

    class Headless(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, ids: Any, mask: Any) -> Any:
            return self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state

    file.parent.mkdir()
    mask = torch.ones(2, 9).long()
    mask[1, 6:] = 0
    axes = {name: {0: "batch", 1: "tokens"} for name in ("input_ids", "attention_mask", "last_hidden_state")}
    with warnings.catch_warnings():
        # The tracing exporter warns that it is the older one.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Headless().eval(),
            (torch.randint(5, 200, (2, 9)), mask),
            str(file),
            input_names=["input_ids", "attention_mask"],
            output_names=["last_hidden_state"],
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )


@pytest.fixture(scope="module", params=["cls", "mean"])
def modular(request: pytest.FixtureRequest, tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A modular model, with the first token's vector for a text or the mean of all."""
    return save(tmp_path_factory.mktemp("modular"), tiny_model_folder, request.param)


@pytest.fixture
def expected(modular: Path) -> Any:
    """The scores of sentence-transformers for this folder."""
    reference = sentence_transformers.CrossEncoder(str(modular), device="cpu")
    return pytest.approx(reference.predict(PAIRS, show_progress_bar=False).tolist(), abs=1e-4)


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_a_modular_model_scores_as_it_was_published(modular: Path, expected: Any, backend: Any) -> None:
    """A headless graph gets its modules and returns sentence-transformers' scores, in the saved unit."""
    if backend == "openvino":
        pytest.importorskip("openvino", reason="needs the openvino extra")
    model = load_cross_encoder(modular, backend=backend)
    assert model.activation == "identity"
    assert model.score(PAIRS) == expected
    assert len({round(score, 3) for score in model.score(PAIRS)}) == len(PAIRS)


def test_a_modular_model_needs_no_torch(modular: Path, expected: Any) -> None:
    """Where torch cannot be imported, the graph is chosen automatically and returns the same scores."""
    script = f"""
import sys
for name in ("torch", "transformers", "sentence_transformers"):
    sys.modules[name] = None
from langchain_crossrerank import load_cross_encoder
model = load_cross_encoder({str(modular)!r})
print(model.backend, *model.score({PAIRS!r}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    backend, *scores = done.stdout.split()
    assert (backend, [float(score) for score in scores]) == ("onnx", expected)


def test_a_change_of_the_head_is_seen(modular: Path, tmp_path: Path) -> None:
    """Other weights of a module are another model: neither the kept graph nor the fingerprint is the same."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(modular, tmp_path / "other")
    place = next((tmp_path / "other").glob("4_*")) / "model.safetensors"
    save_file({name: value + 1 for name, value in load_file(place).items()}, place)
    before, after = (load_cross_encoder(folder, backend="onnx") for folder in (modular, tmp_path / "other"))
    assert before.fingerprint != after.fingerprint
    assert before.score(PAIRS) != pytest.approx(after.score(PAIRS), abs=1e-2)


def edit(folder: Path, module: str, **changes: Any) -> None:
    """Change a module's config."""
    file = next(folder.glob(f"*_{module}")) / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def rename(folder: Path) -> None:
    """Give a module a custom class."""
    file = folder / "modules.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content[2]["type"] = "my_package.Gate"
    file.write_text(json.dumps(content), encoding="utf-8")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "my_package.Gate": rename,
    "lasttoken": lambda folder: edit(folder, "Pooling", pooling_mode="lasttoken"),
    "activation": lambda folder: edit(folder, "Dense", activation_function="torch.nn.modules.activation.Mish"),
    "residual": lambda folder: edit(folder, "Dense", use_residual=True),
    "safetensors": lambda folder: next(folder.glob("2_*")).joinpath("model.safetensors").unlink(),
    "use_residual": lambda folder: edit(folder, "Dense", use_residual="yes"),
    "list of modules": lambda folder: (folder / "modules.json").write_text('[{"path": 3}]', encoding="utf-8"),
}


@pytest.mark.parametrize("named", DAMAGE)
def test_what_cannot_be_appended_is_named(modular: Path, tmp_path: Path, named: str) -> None:
    """A module, pooling or activation that a graph cannot get is refused by name, before any score is given."""
    shutil.copytree(modular, tmp_path / "model")
    DAMAGE[named](tmp_path / "model")
    with pytest.raises(UnsupportedModelError, match=named):
        load_cross_encoder(tmp_path / "model", backend="onnx")


@pytest.mark.parametrize("backend", ["onnx", "torch"])
@pytest.mark.parametrize("module", ["Pooling", "Dense"])
def test_a_module_without_its_settings_is_named(modular: Path, tmp_path: Path, module: str, backend: Any) -> None:
    """A module whose settings are missing is not guessed, and the error names the file."""
    shutil.copytree(modular, tmp_path / "model")
    lost = next((tmp_path / "model").glob(f"*_{module}")) / "config.json"
    lost.unlink()
    with pytest.raises(ModelNotFoundError, match=f"no {lost.parent.name}/config.json"):
        load_cross_encoder(tmp_path / "model", backend=backend)


def test_other_models_have_no_head(tiny_model_folder: Path) -> None:
    """A classifier without modules gets no layers."""
    assert not has_head_modules(tiny_model_folder)
    assert read_head(tiny_model_folder, "tiny") == ()

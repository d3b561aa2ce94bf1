"""Every family of cross-encoders on every backend against plain sentence-transformers, and the table in the README."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra")
sentence_transformers = pytest.importorskip("sentence_transformers", reason="needs the torch extra")
export = pytest.importorskip("langchain_crossrerank.cross_encoders.export", reason="needs the export extra")
pytest.importorskip("openvino", reason="needs the openvino extra")

from langchain_crossrerank.cross_encoders.loading import load_cross_encoder  # noqa: E402
from langchain_crossrerank.cross_encoders.settings import Backend  # noqa: E402
from langchain_crossrerank.cross_encoders.wrappers.windowed import WindowedCrossEncoder  # noqa: E402
from langchain_crossrerank.errors import UnsupportedModelError  # noqa: E402
from tests.tiny_models import FAMILIES, Family, markdown_table  # noqa: E402

ROOT = Path(__file__).parent.parent.parent
TOLERANCE = 1e-4

PAIRS = [
    ("what is lora", "LoRA trains two small matrices."),
    ("what is lora", "The ferry leaves at nine."),
    ("who wrote hamlet", "Hamlet is a tragedy by William Shakespeare. " * 30),
    ("who wrote hamlet", ""),
    ("naïve café 東京", "Emoji 🙂 and right-to-left text: שלום."),
    ("東京は日本の首都ですか", "東京は日本の首都です。"),
    ("кто написал гамлета", "Гамлет написал Уильям Шекспир."),
    ("हैमलेट किसने लिखा", "हैमलेट विलियम शेक्सपियर ने लिखा।"),
    ("a", "b"),
    ("how do plants make food", "Plants make food from light, water and air. " * 2),
]
"""Short, truncated, empty, in several languages, with emoji."""

_families = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
_graphs = [family for family in FAMILIES if not family.exported]
_refused = [family for family in FAMILIES if family.exported]

Saved = Callable[[Family], Path]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """A function that saves a family's tiny model once."""
    folder, made = tmp_path_factory.mktemp("families"), {}

    def saved(family: Family) -> Path:
        if family.name not in made:
            made[family.name] = family.save(folder / str(len(made)))
        return made[family.name]

    return saved


@pytest.fixture(scope="module")
def reference(saved: Saved) -> Callable[[Family], list[float]]:
    """A function that scores the pairs with sentence-transformers, in logits, once for each family."""
    known: dict[str, list[float]] = {}

    def reference(family: Family) -> list[float]:
        if family.name not in known:
            model = sentence_transformers.CrossEncoder(str(saved(family)), device="cpu")
            found = model.predict(PAIRS, activation_fn=torch.nn.Identity(), show_progress_bar=False)
            known[family.name] = [float(value) for value in found]
        return known[family.name]

    return reference


@pytest.fixture(scope="module")
def exported(saved: Saved, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """A function that exports a family's tiny model once."""
    folder, made = tmp_path_factory.mktemp("graphs"), {}

    def exported(family: Family) -> Path:
        if family.name not in made:
            target = folder / str(len(made))
            export.export_onnx(str(saved(family)), target)
            made[family.name] = target
        return made[family.name]

    return exported


def check(folder: Path, backend: Backend, expected: list[float]) -> None:
    """Assert the reference's scores and order, in one call and pair by pair."""
    model = load_cross_encoder(folder, backend=backend, activation="identity", device="cpu")
    scores = model.score(PAIRS)
    assert scores == pytest.approx(expected, abs=TOLERANCE)
    order, wanted = (sorted(range(len(PAIRS)), key=values.__getitem__) for values in (scores, expected))
    assert order == wanted
    assert [model.score([pair])[0] for pair in PAIRS] == pytest.approx(scores, abs=TOLERANCE)


@_families
def test_torch_scores_as_sentence_transformers_does(
    family: Family, saved: Saved, reference: Callable[[Family], list[float]]
) -> None:
    """The torch backend has the scores and the order of plain sentence-transformers, alone and in a batch."""
    check(saved(family), "torch", reference(family))


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
@pytest.mark.parametrize("family", _graphs, ids=lambda family: family.name)
def test_exported_graphs_score_as_sentence_transformers_does(
    family: Family, backend: Backend, exported: Saved, reference: Callable[[Family], list[float]]
) -> None:
    """An exported graph has the scores and the order of plain sentence-transformers, alone and in a batch."""
    check(exported(family), backend, reference(family))


@pytest.mark.parametrize("family", _refused, ids=lambda family: family.name)
def test_what_no_graph_can_do_is_refused(family: Family, saved: Saved, tmp_path: Path) -> None:
    """A family that an exported graph could not score right is refused with the reason, and nothing is written."""
    assert family.exported
    with pytest.raises(UnsupportedModelError, match=family.exported):
        export.export_onnx(str(saved(family)), tmp_path / "graph")
    assert not (tmp_path / "graph").exists()


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_scores_of_a_family_differ(family: Family, reference: Callable[[Family], list[float]]) -> None:
    """The tiny models tell pairs apart by far more than the tolerance, so that equal scores prove something."""
    scores = sorted(reference(family))
    assert scores[-1] - scores[0] > 1000 * TOLERANCE


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_graphs_use_a_saved_default_prompt(backend: Backend, tmp_path: Path, exported: Saved, saved: Saved) -> None:
    """A graph in a folder with a saved default prompt scores with that prompt, windows included."""
    prompts = {"search": "what is the right text to "}
    model = sentence_transformers.CrossEncoder(str(saved(FAMILIES[0])), prompts=prompts, default_prompt_name="search")
    model.save_pretrained(str(tmp_path / "prompted"))
    shutil.copyfile(exported(FAMILIES[0]) / "model.onnx", tmp_path / "prompted" / "model.onnx")
    found = model.predict(PAIRS, activation_fn=torch.nn.Identity(), show_progress_bar=False)
    check(tmp_path / "prompted", backend, [float(value) for value in found])
    graph = load_cross_encoder(tmp_path / "prompted", backend=backend, activation="identity")
    reference = load_cross_encoder(tmp_path / "prompted", backend="torch", activation="identity", device="cpu")
    windows = WindowedCrossEncoder(reference).score(PAIRS)
    assert WindowedCrossEncoder(graph).score(PAIRS) == pytest.approx(windows, abs=TOLERANCE)


def test_a_graph_with_a_chat_template_is_refused(tmp_path: Path, exported: Saved) -> None:
    """A graph whose model needs a chat template is not scored with bare pairs."""
    shutil.copytree(exported(FAMILIES[0]), tmp_path / "chat")
    (tmp_path / "chat" / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    with pytest.raises(UnsupportedModelError, match=r"chat template.*backend=.torch."):
        load_cross_encoder(tmp_path / "chat", backend="onnx")


def test_the_site_has_the_table() -> None:
    """The table of families on the site is the one that is tested here; `scripts/model_table.py` prints it."""
    page = ROOT / "docs" / "reference" / "model-families.md"
    assert markdown_table() in page.read_text(encoding="utf-8")

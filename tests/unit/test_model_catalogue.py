"""The catalogue of models."""

from __future__ import annotations

from langchain_crossrerank import load_cross_encoder
from langchain_crossrerank.cross_encoders.settings import DEFAULT_MODEL
from langchain_crossrerank.model_catalogue import HEADINGS, MODELS, table_notes, table_rows


def test_the_bundled_model_is_described_as_it_loads() -> None:
    """Length, unit and backend in the catalogue are those of the loaded model."""
    (facts,) = [model for model in MODELS if model.name == "bundled"]
    loaded = load_cross_encoder("bundled")
    assert (facts.max_length, facts.backends[0]) == (loaded.max_length, loaded.backend)
    assert facts.unit == {"sigmoid": "probability", "identity": "logit"}[loaded.activation]


def test_the_default_model_is_in_it_and_no_model_twice() -> None:
    """Each model has one entry, and the default has one."""
    names = [model.name for model in MODELS]
    assert DEFAULT_MODEL in names
    assert len(set(names)) == len(names)


def test_every_figure_names_a_source_that_the_notes_explain() -> None:
    """The letter of each figure of quality is explained below the table."""
    explained = {note[0] for note in table_notes() if note[1:3] == ": " and note[0].islower()}
    column = HEADINGS.index("Quality")
    letters = {figure[-1] for row in table_rows() for figure in row[column].split(", ") if figure}
    assert letters == explained


def test_every_row_has_a_cell_for_every_heading() -> None:
    """The table is rectangular, and nothing but quality and time is left empty."""
    for row in table_rows():
        assert len(row) == len(HEADINGS)
        assert all(cell for cell, heading in zip(row, HEADINGS, strict=True) if heading not in ("Quality", "ms"))

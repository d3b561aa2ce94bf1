"""How the values of options are read."""

from __future__ import annotations

import pytest
import typer

from langchain_crossrerank.cli.options import finite_number, model_name, readable_text, split_list, whole_numbers


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        (["a,b"], ["a", "b"]),
        (["a", "b , c"], ["a", "b", "c"]),
        (["nDCG(dcg='exp-log2')@10,P(rel=2)@5"], ["nDCG(dcg='exp-log2')@10", "P(rel=2)@5"]),
        (["nDCG(dcg='exp-log2',gains={0:1})@10"], ["nDCG(dcg='exp-log2',gains={0:1})@10"]),
        ([",", ""], []),
    ],
)
def test_a_list_is_split_at_commas_and_may_be_repeated(values: list[str], parts: list[str]) -> None:
    """Commas separate, except inside a measure's brackets; empty parts do not count."""
    assert split_list(values) == parts


def test_whole_numbers_are_read_from_a_list() -> None:
    """`5,10` and a repeated option are the same; anything else is a wrong call that shows the value."""
    assert whole_numbers(["5,10", "20"], option="--ks") == [5, 10, 20]
    with pytest.raises(typer.BadParameter, match=r"'5,many'"):
        whole_numbers(["5,many"], option="--ks")


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "some", ""])
def test_a_number_that_is_not_finite_is_a_wrong_call(text: str) -> None:
    """What is not a finite number is refused with its value."""
    with pytest.raises(typer.BadParameter, match=repr(text)):
        finite_number(text)
    assert finite_number("-0.05") == -0.05


def test_a_text_that_is_not_valid_can_be_read() -> None:
    """Bytes that the terminal's encoding did not allow become U+FFFD; everything else stays the same."""
    assert readable_text("What \udcff is LoRA?") == "What \ufffd is LoRA?"
    assert readable_text("Wann fährt die Fähre? 猫") == "Wann fährt die Fähre? 猫"


@pytest.mark.parametrize("text", ["", " \t"])
def test_a_blank_name_of_a_model_is_a_wrong_call(text: str) -> None:
    """A name without a letter names no model; any other is taken as it is."""
    with pytest.raises(typer.BadParameter, match="names no model"):
        model_name(text)
    assert model_name("org/model") == "org/model"

"""Passages on two subjects."""

from __future__ import annotations

LORA = "LoRA freezes the model and trains two small matrices."
MEMORY = "LoRA keeps no optimiser state for frozen weights."
BREAD = "Knead the dough for ten minutes."

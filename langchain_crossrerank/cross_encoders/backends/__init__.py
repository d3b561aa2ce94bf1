"""One module per way to compute scores."""

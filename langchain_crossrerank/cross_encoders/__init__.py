"""Cross-encoders: the contract, the backends that compute scores, wrappers around them, and loading by name."""

"""Cross-encoders around another one: each delegates everything and overrides one thing."""

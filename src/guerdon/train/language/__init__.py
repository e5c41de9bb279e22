"""Training of language models: `loop` reads from top to bottom."""

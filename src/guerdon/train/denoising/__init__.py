"""Training of diffusion and flow models: `loop` reads from top to bottom."""

"""Reference training loops, from a recipe to a run."""

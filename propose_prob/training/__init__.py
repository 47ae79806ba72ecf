"""Training: objectives, phases, loop, checkpoints."""

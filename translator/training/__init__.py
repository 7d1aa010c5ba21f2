"""The training recipe on both sides: losses, optimizers, schedules, and the proof that they agree."""

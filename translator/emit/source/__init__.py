"""From the plan to Keras source code, in three styles."""

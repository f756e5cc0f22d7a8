"""What a model is worth: metrics as pure functions, and the two evaluators that use them everywhere."""

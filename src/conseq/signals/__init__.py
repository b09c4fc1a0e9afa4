"""What is computed from the log or the encoder between epochs."""

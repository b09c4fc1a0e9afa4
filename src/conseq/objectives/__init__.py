"""Terms of a loss: functions from tensors to a scalar."""

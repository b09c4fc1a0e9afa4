"""A log becomes batches."""

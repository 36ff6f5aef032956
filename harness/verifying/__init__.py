"""Whether records follow from their samples."""

"""A against B, document by document."""

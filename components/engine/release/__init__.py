"""Where a release lies and how it gets there."""

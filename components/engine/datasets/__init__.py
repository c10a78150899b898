"""Data: sources, deterministic splits, and the directory that flows between stages."""

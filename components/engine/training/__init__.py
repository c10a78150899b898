"""Tasks and the fine-tuning loop."""

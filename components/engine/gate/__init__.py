"""The deployment gate: policy, decision, promotion, and the record of it."""

"""The deployment gate: decision, proof, promotion, and the record of it."""

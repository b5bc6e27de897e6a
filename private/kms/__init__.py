"""``quotary kms``: one node of a key service, run by an operator of its own (docs/formats/kms.md)."""

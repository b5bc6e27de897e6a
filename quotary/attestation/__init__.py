"""Knowledge of trusted hardware, pure: evidence in, facts out; no clock, network, file (design section 6)."""

"""The search: Ray Tune and Optuna around trial slots, with a record that survives any crash."""

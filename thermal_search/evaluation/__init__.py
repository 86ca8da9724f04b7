"""Measuring a generator: the evaluator, the baselines, and the commands `evaluate` and `fid`."""

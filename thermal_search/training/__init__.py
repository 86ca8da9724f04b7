"""How one trial trains: the step, its state, its evaluation, and the loop a slot's workers run."""

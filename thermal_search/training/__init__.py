"""How one trial trains: the step, its optimizers, its CUDA graphs, the moving average, the loop."""

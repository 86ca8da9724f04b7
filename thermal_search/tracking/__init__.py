"""MLflow: the runs of a search, the queue that survives a server that is away, and the UI."""

"""Prepared datasets: the manifest, frames in memory or in Ray Data, and training batches."""

"""From a raw recording to batches: layouts, splits, resized shards, and Ray Data over them."""

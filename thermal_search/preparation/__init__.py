"""From a raw recording to resized pairs in Parquet shards."""

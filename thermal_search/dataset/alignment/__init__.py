"""Which part of an RGB picture shows what the thermal one shows: known, or found by matching."""

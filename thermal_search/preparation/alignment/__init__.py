"""Which part of an RGB image shows what the thermal one shows: known, or found by matching."""

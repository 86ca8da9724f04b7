"""Values to choose from that flags share with the modules behind them.

This module imports no torch, so that --help answers at once.
"""

from typing import Literal

FeaturesPrecision = Literal["fp32", "bf16"]
"""Precision of a feature network."""

Precision = Literal["auto", "bf16", "fp32"]
"""Precision of the forward pass in training; auto: bf16 if the hardware supports it."""

Split = Literal["train", "val", "test"]
EvaluationSplit = Literal["val", "test"]

FixedAlignment = Literal["none", "center", "table", "auto"]
"""The methods of alignment that need no file."""

HOMOGRAPHY_PREFIX = "homography:"
"""The start of an --align that names a file of homographies."""
ExportFormat = Literal["safetensors", "pt2", "onnx"]
"""Files of an exported generator: weights for this package, a program of torch.export, ONNX."""

"""Exported generators for programs that do not know this package: torch.export and ONNX."""

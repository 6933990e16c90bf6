"""ONNX files as models: what a file holds, and the training step that it stands for."""

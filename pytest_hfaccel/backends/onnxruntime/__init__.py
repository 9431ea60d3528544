"""ONNX Runtime: converts with transformers' own exporter, and reads back which provider runs each node, and how."""

"""ExecuTorch: lowers with transformers' own exporter, and reads back which operators XNNPACK did not take."""

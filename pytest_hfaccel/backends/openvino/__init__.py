"""Every OpenVINO device: converts with transformers' own exporter, compiles, and reads back what really runs."""

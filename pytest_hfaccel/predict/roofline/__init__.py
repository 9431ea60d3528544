"""The operator-level roofline: from a trace and a calibration to seconds. `layer` may be imported early."""

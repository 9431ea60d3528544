"""Plain data and pure functions that every layer may use: specs, results, configuration, errors. No heavy imports."""

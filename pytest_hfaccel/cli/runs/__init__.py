"""The commands that run cells: here, in shards, on a cluster or on rented machines."""

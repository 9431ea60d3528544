"""A user's project: made ready by `hfaccel init`, examined by `hfaccel doctor`."""

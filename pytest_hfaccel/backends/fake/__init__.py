"""A backend for tests of the plugin: a device that exists by name only, and does what a script says."""

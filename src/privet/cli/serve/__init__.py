"""`privet serve`: its options in `command`, what is served in `site`, and sockets, signals and workers in `running`."""

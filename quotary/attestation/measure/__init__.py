"""Expected registers from the files of a build: pure functions from bytes to digests, each with its steps."""

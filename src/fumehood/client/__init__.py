"""Fumehood on another machine: the remote Executor over the HTTP API of `fumehood serve`."""

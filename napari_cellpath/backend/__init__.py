"""The one shared inference backend: jobs on the client, the engine on the worker."""

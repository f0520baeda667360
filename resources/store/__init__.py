"""The artifact store: attempts, artifacts, refs, the cache, and garbage collection."""

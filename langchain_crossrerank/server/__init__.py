"""The rerank server: local cross-encoders over HTTP, in the shapes that clients of other rerank servers send."""

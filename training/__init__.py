"""Jobs that make models. They run without faiss and without the service."""

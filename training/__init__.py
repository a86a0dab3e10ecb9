"""Training jobs. They need neither faiss nor the service."""

"""The web service: a gallery over HTTP, and the page that compares methods."""

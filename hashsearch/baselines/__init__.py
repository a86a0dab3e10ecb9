"""What codes are compared with."""

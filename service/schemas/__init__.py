"""What goes over the wire: parameters, bodies and answers, one file for a group of paths."""

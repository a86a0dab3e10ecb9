"""Ray: encoding on many machines, and searching slices of the codes on many machines."""

"""Methods that the evaluation compares codes with."""

"""The tailnet's policy file: reads it, and finds what tailbone would make of it."""

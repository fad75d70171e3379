"""The process itself: its log, its signals, and how its tasks end."""

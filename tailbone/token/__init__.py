"""Who calls, what they may have, and what is signed."""

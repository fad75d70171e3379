"""The agent: keeps token files fresh, serves tokens to local programs, and runs commands with them."""

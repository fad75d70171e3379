"""The server as a whole: composition, node and addresses."""

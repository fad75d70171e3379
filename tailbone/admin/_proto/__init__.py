"""Generated from admin.proto; ``python -m tailbone.admin._proto`` makes it again."""

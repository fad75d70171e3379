"""What a release has beside the code: its wheels, the licences in them, and their bill of materials."""

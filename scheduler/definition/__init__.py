"""What a build says: its model, how it is read, checked and written, and what its references come to."""

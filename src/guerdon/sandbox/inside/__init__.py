"""What runs inside the sandbox. It is copied there file by file, so it imports the standard library and itself only."""

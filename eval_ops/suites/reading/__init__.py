"""What suite files and items files say: keys, rows and forms, read and checked."""

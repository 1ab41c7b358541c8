"""Where the lines go: files, sockets and the console."""

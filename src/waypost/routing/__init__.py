"""Request in, decision out. Pure: nothing here opens a file, a socket or a clock."""

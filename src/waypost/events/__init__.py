"""What happened: the event, who it was (privately), and the spool that keeps it until it is stored."""

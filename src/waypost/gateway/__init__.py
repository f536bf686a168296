"""The data plane: bytes in, bytes out. Decisions are made elsewhere; here they are carried out."""

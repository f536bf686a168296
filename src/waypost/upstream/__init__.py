"""Everything that talks to upstreams: the client, the address guard, tokens."""

"""Many nodes: who is there, and what changes for all of them; Consul is where they meet."""

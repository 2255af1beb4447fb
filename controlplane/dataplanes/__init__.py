"""The data planes: where they are, how they are asked, and how each is kept at what was accepted."""

"""`make bench`: our figures beside other proxies', from one interleaved run."""

"""dataplane/runtime"""

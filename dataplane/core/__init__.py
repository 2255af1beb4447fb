"""dataplane/core"""

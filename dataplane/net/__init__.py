"""dataplane/net"""

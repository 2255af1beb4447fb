"""dataplane/core/balance"""

"""controlplane/core"""

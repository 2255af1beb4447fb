"""controlplane/sources"""

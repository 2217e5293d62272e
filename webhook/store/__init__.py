"""Every query of the service, one noun a module.

Each function takes a `Session`, an open transaction, and never commits. Rows come back as frozen structs.
"""

"""The sandbox, called by the vendor's own SDKs."""

"""The REST API and the callback address, from outside."""

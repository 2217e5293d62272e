"""The REST API for clients: routes of a table, each with its role, its schemas and its answers.

`routing` knows how a request becomes an answer, `schemas` the shapes, `openapi` describes both. The other
modules hold the routes, one noun each. A route's function takes plain values and runs in a thread, since it
waits for the database; it knows nothing of Flask.
"""

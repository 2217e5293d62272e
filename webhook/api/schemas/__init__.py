"""The shapes of the REST API: what comes in is checked by them, what goes out is described by them.

One noun a module, as the routes are; `base` and `lists` have what they share. Pydantic reads the annotations as
the modules are imported, so here they are no mere text.
"""

"""A stand-in for the moderation platform: a separate program that imports nothing of the service.

It speaks the vendor's signed API, stores uploads, takes as long as it is told, and calls back, so the
vendor's own SDK runs against it. What comes out is chosen by the source's file name or query: see
`magic`. The way of the data::

    submit    api -> authorization.verify -> parameters.parse -> magic.read -> tasks
    result    moderation -> slices -> callbacks (resent until 200)
    upload    uploads (token, object) -> submit by bucket and object
    looking   ledger: what was accepted, charged, sent and answered

`server.start` runs it inside a program of yours, `server.run` until SIGTERM.
"""

"""The floor of the receiving benchmark: a Flask handler that only reads the form and answers 200."""

from __future__ import annotations

from flask import Flask, request

app = Flask(__name__)


@app.post("/callbacks/<token>")
def callback(token: str) -> str:
    """Read the form, as every handler of callbacks must, and do nothing with it."""
    assert token
    assert request.form["content"]
    return ""

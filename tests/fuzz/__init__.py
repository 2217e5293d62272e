"""Proof under garbage: whatever comes in, answers are the contract's, and nothing crashes, hangs or is believed.

`python -m tests.fuzz --cases 1000000 --seed 7` draws cases by a seed for each target: the parser, the callbacks' route,
the API's routes, and connections. What is found is kept in a file, from which it is asked again.
"""

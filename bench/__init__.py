"""Benchmarks beside what they are compared to, in one run: `nox -s bench`, or `python -m bench` once all is built.

Linux only: memory and the state of a process are read from /proc.
"""

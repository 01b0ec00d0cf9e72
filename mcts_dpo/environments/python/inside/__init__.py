"""Runs inside the sandbox: `zygote` starts, forks and serves, `state` runs a block along a path, `block` runs code.

Standard library only, nothing of the project: the sandbox holds Python, its packages and this folder.
"""

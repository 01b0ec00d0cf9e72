"""The search behind OpenAI's HTTP protocol, for any client of it: `mcts-dpo serve`.

`running.py` starts and ends the server, `app.py` has the routes, `request_bodies.py` reads bodies, `protocol.py` turns
them into questions, and `responses.py` writes answers. `../engine_thread.py` runs the engine and all searches in one
thread. Needs the extra `serve`.
"""

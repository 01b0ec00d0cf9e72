"""The search behind OpenAI's HTTP protocol, so that any client of it is a client of ours: `mcts-dpo serve`.

`running.py` starts and ends it, `app.py` answers HTTP, `protocol.py` reads requests and `bodies.py` writes answers,
`../engine_thread.py` owns the one engine, in a thread of its own, and all searches in it. Needs the extra `serve`.
"""

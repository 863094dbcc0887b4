"""The operators' console: migrations, their timelines and dead letters as a web page and as a JSON API.

A process of its own, so that nothing a browser does slows a move; nothing else imports it. `server.py`
runs it, `app.py` puts it together, `access.py` decides who may see and do what. `reader.py` asks the journal, in the
shapes of `documents.py`; `api.py` and `pages.py` show them, `live.py` says when they have changed, `metrics.py` counts.
`acts.py` changes things, through the functions of the commands.
"""

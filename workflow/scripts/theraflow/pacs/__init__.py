"""From and to a PACS: C-ECHO, C-FIND, C-GET or C-MOVE, C-STORE.

`connection` says who is called, `association` speaks with it and tells in sentences what went wrong, `query` asks what
is there, `retrieve` brings one series, `fetch` puts series into the folder that `theraflow index` reads, `send` hands
results over, `command` is the command line. It stands apart from the stages: none of them needs a PACS.
"""

"""HTTP/1.1 as this service speaks it: strict heads, time limits, counted connections.

`heads` says what a request may look like, `exchange` is one request and its response as ASGI,
`connection` turns bytes into exchanges, `connections` counts them and ends those that are too slow.
`api.server` starts them.
"""

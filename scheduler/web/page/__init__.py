"""The page: builds in a browser, and the control API over HTTP.

The page is a client in the process: its questions are those of operators, and are answered by the same code
(`asking`). What a view shows is made once for all viewers (`wholes`, `live`), and nothing runs without any.
`answers` has the structures of what is said, from which the OpenAPI document comes (`openapi`).
"""

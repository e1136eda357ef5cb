"""The process as a server of HTTP: metrics, and health for probes.

`server` accepts connections, and bounds them; `app` answers requests; `figures` takes the numbers where they
are, and `exposition` writes them. Libraries for HTTP and for metrics are loaded by `server`, `app` and
`exposition` alone, and these where the settings ask for a port.
"""

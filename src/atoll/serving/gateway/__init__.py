"""The data plane: one process that authenticates, limits, routes, streams and meters every inference request.

http, connection and upstream move bytes; snapshot and directory say who may call what; exchange lives one request:
admission holds its allowances, dispatch gives it a place, attempt asks, continuation goes on after a death, relay
passes the answer; events and usage count its tokens; limits and slices say how much there may be; journal, recorder
and shipper make the count durable and deliver it; dialects know what clients and engines say; proxy hands the rest to
the server.
"""

"""The data plane: one process that authenticates, routes, streams and meters every `/v1` request.

http and upstream move bytes; snapshot says who may call what; exchange lives one request; events and usage count its
tokens; journal and shipper make the count durable and deliver it; proxy hands everything else to the server.
"""

"""What clients may say and how it becomes an engine's request, and its answer the client's answer again.

    expect -> parameters -> order -> generation -> anthropic, responses, ...    requests, one module a dialect
    schema -> tools                                                            what small engines cannot do themselves

Everything here is pure: bytes in, bytes out. Only `centre` asks the server, for dialects that keep a state there.
"""

"""The network adapter: the only importer of aiohttp, and the one place where its errors become ours.

- `addresses`: The addresses of one host, tried beside each other until one leads to a connection, TLS included (RFC
  8305).
- `client`: One transport over aiohttp's client.
- `connections`: Connections: how one is made, how it is looked at before it is used again, and how its answers are
  parsed.
- `errors`: The one place where aiohttp's exceptions become this library's.
- `heads`: Heads of answers that are a little off the grammar, written anew in it: what curl and browsers read can be
  read.
- `pooled`: A POST put on a connection of aiohttp's pool directly, without its client, and when that is allowed.
- `proxies`: Proxies: what one is, and which of the environment's a host is reached through.
- `response`: An answer of aiohttp's as this library's `Response`: its pieces, decoded, and how long it may be silent.
- `server`: A transport served on a real port.
- `sockets`: Sockets of connections that carry submissions: what was given up must not arrive, and
  bytes that come while one is idle are no answer.
"""

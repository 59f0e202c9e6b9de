"""What every part of the library stands on: requests, signing, batches, time, and what an answer means.

- `admission`: When an attempt may begin, by the limits of its session.
- `answers`: What an answer says, however it says it: its JSON, the service's own words, its code, the ids that it
  names.
- `batch`: Many pieces of work at once, bounded on both sides, given as they finish.
- `batch_source`: Where a batch's items come from: read by one task of their own, and what is left of them after an
  error.
- `causes`: Which failures have the same cause, so that the first few of them tell what all the others would meet.
- `clock`: The door to time and chance. Nothing else asks for the time, sleeps or draws a random number.
- `codings`: Content codings (RFC 9110, 8.4.1) that nobody asked for, undone: gzip and deflate, piece by piece within
  a bound.
- `credential_watch`: Whether the service still accepts a session's credential: pure, told of what happens.
- `envelope`: What an answer says of an error: its envelope, its code, its Retry-After.
- `error_bodies`: How much of an answer's body is read when it is no success: what an error envelope may need, and no
  more.
- `exact_json`: JSON read exactly: numbers as decimals, no name twice, no NaN.
- `hold`: What an answer that is read on after its call has hold of, and for how long: the inside of `Session.open`.
- `http`: The words of HTTP as this library uses them: a request, a response, a transport; quoting of paths.
- `order_ids`: What an order id may be given as: text, a UUID or a whole number, as a database gives it; inside it is
  text.
- `outcomes`: What every answer to a submission means: one table, read from above, and the few rules that follow from
  it.
- `ramp`: How a batch begins carefully, and when it stops before it is burned: two pure state machines.
- `rate_limiter`: How fast one session may press a service: pure, without a clock or a loop.
- `secrecy`: What keeps secrets out of tracebacks, whose locals some tools show: a text that hides itself, and frames
  left out.
- `semaphore`: A counted number of places, taken at once where one is free and in order where none is.
- `signing`: The HMAC partner signature as pure stages (README A.2): body hash, base string, digest, header.
- `tasks`: Tasks of a session: how they begin, and how closing the session ends what is under way in it.
"""

"""What every other part of the library uses: requests, signing, batches, time, and what an answer means.

- `admission`: When an attempt may begin, by the limits of its session.
- `answers`: What an answer says, however it says it: its JSON, the service's own words, its code, the ids that it
  names.
- `batch`: Work for many items at once, with outcomes as they finish and a limit on both sides.
- `batch_places`: The places of a batch: one for each item from when it is read until its outcome is taken.
- `batch_source`: The input of a batch: its items, one after the other, and what is left of them after an error.
- `causes`: Which failures have the same cause, so that a batch can stop after the first few of them.
- `clock`: Time and chance. No other module asks for the time, sleeps or draws a random number.
- `codings`: Content codings (RFC 9110, 8.4.1) that nobody asked for, undone: gzip and deflate, piece by piece within
  a bound.
- `credential_watch`: Whether the service still accepts a session's credential. Pure.
- `envelope`: What an answer says of an error: its envelope, its code, its Retry-After.
- `error_bodies`: How much of an answer's body is read when it is no success: what an error envelope may need, and no
  more.
- `error_words`: What an error says in a line that names its item: in a table, a report, a run file.
- `exact_json`: JSON read exactly: numbers as decimals, no name twice, no NaN.
- `fair`: Turns between several, each with a line of its own: pure, without a clock or a loop.
- `hold`: What an answer that is read on after its call has hold of, and for how long: the inside of `Session.open`.
- `http`: Requests, responses and transports as this library uses them; quoting of paths.
- `leased_rate`: The permits that are leased of a rate which several processes share. Pure.
- `order_ids`: What an order id may be given as: text, a UUID or a whole number, as a database gives it; inside it is
  text.
- `outcomes`: What every answer to a submission means: one table, read from above, and the few rules that follow from
  it.
- `ramp`: How many items a batch begins with, and when the same failure of the first few ends it: two pure state
  machines.
- `rate_limiter`: How many attempts of one session may begin in a second. Pure, without a clock or a loop.
- `secrecy`: What keeps secrets out of tracebacks, whose locals some tools show: a text that hides itself, and frames
  left out.
- `semaphore`: A counted number of places, taken at once where one is free and in order where none is.
- `shared_admission`: Admission by a rate that several processes share: its permits are leased, some at a time.
- `shared_lanes`: What several processes that work on one run keep together: the rate of all, and the pauses of each
  lane.
- `signing`: The HMAC partner signature in stages (README A.2): hash of the body, base string, digest. Pure.
- `tasks`: Tasks of a session: how they begin, and how closing the session ends what is under way in it.
"""

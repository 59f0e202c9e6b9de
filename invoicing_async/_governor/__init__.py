"""When an attempt may begin, from how the ones before it ended: what each item learned, all others know.

A lane is (service, operation, store). Its parts are pure, with time and chance handed in; the gates alone wait.

- `outage`: When a lane stops sending because the service is down, and how it begins again.
- `concurrency`: How many attempts of a lane are under way at once: a limit that is found by trying.
- `budget`: How many of a lane's attempts may be retries.
- `lane`: One lane: when its next attempt may begin.
- `gate`: Where attempts wait for their lane, in an event loop.
- `shared_outage`, `shared_gate`, `shared_governor`: The same for several processes, which tell each other of outages.
"""

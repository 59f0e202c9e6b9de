"""The commands, one module each, loaded when it is the one that was given.

- `demo`: `demo`: the whole library at work against both services in miniature, on this machine, without a key.
- `doctor`: `doctor`: what is set up and what is not, without a secret; with --online, whether the services answer.
- `documents`: `documents download`: the invoices of any number of orders, whole, into a folder.
- `invoices`: `invoices submit | wait | status | example`: e-invoices from drafts to their end.
- `machine`: `schema` and `completion`: what programs and shells need to know of the commands.
- `repair`: `runs resolve | retry | export | refresh`: what people say of a run's e-invoices, and what they need for
  that.
- `run_report`: `runs report`: a run as one page of HTML, for an operator, an accountant, or a printer.
- `runs`: `runs show | resume | verify`: a run file looked at, gone on with, and proved.
- `sandbox`: `sandbox`: both services in miniature on this machine until Ctrl-C, with the settings that reach them.
- `sign`: `sign`: every stage of a signature, to compare with what the service expects; secrets are masked.
"""

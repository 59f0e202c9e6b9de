"""Order invoices as PDFs and e-invoices by the batch, for asyncio."""

VERSION = "0.1.0"

"""An Odoo-like instance, its configuration and database, and clients that write to it."""

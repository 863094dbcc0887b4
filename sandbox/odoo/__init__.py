"""An Odoo-like instance, its configuration and database, and customers who write."""

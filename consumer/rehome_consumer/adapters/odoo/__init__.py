"""The instance's odoo.conf on the shared storage."""

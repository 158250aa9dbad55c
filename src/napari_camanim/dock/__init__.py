"""The dock widget: fields, buttons and messages."""

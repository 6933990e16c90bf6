"""The commands of `nettime`: one module each, with what it needs imported when it runs."""

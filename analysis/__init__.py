"""analysis: commands, tables, plots and reports for people."""

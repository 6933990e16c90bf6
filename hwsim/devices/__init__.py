"""Device models: one file is one model, bound to MODEL; `specs/` holds their specifications."""

"""The HTTP face: routes, problems, paging, events and the dashboard. Never imports torch or a solver library."""

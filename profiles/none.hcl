# Nothing but what the spec itself asks for.
name     = "none"
title    = "No controls"
controls = {}

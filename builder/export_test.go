package builder

// Unplace has a spec forget where in a file its blocks are.
func Unplace(s *Spec) { s.where = nil }

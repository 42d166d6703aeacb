package profiles

// Service returns a service by its name without scheme and instance, such as "network/ssh", or nil.
func (s *SMF) Service(name string) *SMFService { return s.services[name] }

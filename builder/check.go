package builder

func (p *parser) check() {}
